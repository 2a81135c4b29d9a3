-- What plugins ask of a request or response, and how they answer. Nothing is kept between two calls: Envoy's wrappers of
-- headers and the like end at every yield.

local modules = ...
local json, url, trim, report, settings = modules.json, modules.url, modules.trim, modules.report, modules.settings

local error, pairs, pcall, tostring, type = error, pairs, pcall, tostring, type
local find, gmatch, lower, match, sub = string.find, string.gmatch, string.lower, string.match, string.sub

-- Dynamic metadata: what plugins save, and what the response phase needs to know of the request.
local SAVED, REQUEST = "istio-plugins.saved", "istio-plugins.request"

-- The handles of response phases. Asking the headers instead would let one plugin mislead another.
local responding = setmetatable({}, {__mode = "k"})

-- Responses that must lose a body which cannot be buffered (drain).
local draining = setmetatable({}, {__mode = "k"})

-- STOP is raised to leave a response function early; it is no failure.
local STOP = {}

local JSON = "application/json; charset=utf-8"

local pdk = {}

-- Headers.

local TOKEN = "^:?[%w!#$%%&'*+%-.^_`|~]+$"

local function checked_name(name)
  if type(name) ~= "string" or not find(name, TOKEN) then
    error("not a header name: " .. report.describe(name), 3)
  end
  return name
end

-- Envoy takes a value with a line break and fails the request later, at the upstream.
local function checked_value(name, value)
  if type(value) == "number" then
    value = tostring(value)
  elseif type(value) ~= "string" then
    error("the value of header " .. name .. " is a " .. type(value) .. ", not a string", 3)
  end
  if find(value, "[%z\r\n]") then
    error("the value of header " .. name .. " has CR, LF or NUL", 3)
  end
  return value
end

-- Envoy's get joins the values of a repeated header.
function pdk.header(handle, name)
  local value = handle:headers():getAtIndex(name, 0)
  return value
end

local function values(headers, name)
  local out = {}
  for i = 0, headers:getNumValues(name) - 1 do
    out[i + 1] = headers:getAtIndex(name, i)
  end
  return out
end

function pdk.headers(handle, name)
  return values(handle:headers(), name)
end

function pdk.set_header(handle, name, value)
  handle:headers():replace(checked_name(name), checked_value(name, value))
end

function pdk.add_header(handle, name, value)
  handle:headers():add(checked_name(name), checked_value(name, value))
end

function pdk.remove_header(handle, name)
  handle:headers():remove(name)
end

-- cookie reads all lines: HTTP/2 clients send one for each cookie.
function pdk.cookie(handle, name)
  for _, line in ipairs(values(handle:headers(), "cookie")) do
    for pair in gmatch(line, "[^;]+") do
      local equals = find(pair, "=", 1, true)
      if equals and trim(sub(pair, 1, equals - 1)) == name then
        return trim(sub(pair, equals + 1))
      end
    end
  end
  return nil
end

-- Request line.

function pdk.path(handle)
  local target = pdk.header(handle, ":path")
  if target == nil then
    return "", nil
  end
  local mark = find(target, "?", 1, true)
  if not mark then
    return target, nil
  end
  return sub(target, 1, mark - 1), sub(target, mark + 1)
end

function pdk.set_path(handle, path, query)
  pdk.set_header(handle, ":path", query and path .. "?" .. query or path)
end

pdk.query = url.query

-- Where the request comes from and what it matched.

function pdk.client_ip(handle)
  local address = handle:streamInfo():downstreamRemoteAddress()
  return match(address, "^%[(.*)%]:%d+$") or match(address, "^([%d.]+):%d+$") or address
end

function pdk.route(handle)
  return handle:streamInfo():routeName() or ""
end

function pdk.virtual_service(handle)
  local path = handle:streamInfo():filterState():get(settings.virtual_service)
  if type(path) ~= "string" then
    return nil
  end
  local namespace, name = match(path, "/namespaces/([^/]+)/virtual%-service/([^/]+)$")
  return namespace and namespace .. "/" .. name
end

-- What the response phase knows of the request.

local function is_grpc_type(content_type)
  return content_type ~= nil and sub(lower(content_type), 1, 16) == "application/grpc"
end

-- A response that may never end: nothing may wait for its body.
local function is_streaming(handle)
  local content_type = pdk.header(handle, "content-type")
  return is_grpc_type(content_type) or content_type ~= nil and sub(lower(content_type), 1, 17) == "text/event-stream"
    or pdk.header(handle, ":status") == "101"
end

-- keep saves it for versions of Envoy whose response phase cannot read request headers. That the client sent HEAD is saved
-- for all: a plugin may change the method, and a body would become part of the client's next answer.
local function keep(handle)
  local headers = handle:headers()
  if headers:get(":method") == "HEAD" then
    handle:streamInfo():dynamicMetadata():set(REQUEST, "head", true)
  end
  if handle.requestHeaders then
    return
  end
  local kept = {id = headers:getAtIndex("x-request-id", 0)}
  local content_type = headers:getAtIndex("content-type", 0)
  if is_grpc_type(content_type) then
    kept.grpc = true
  end
  handle:streamInfo():dynamicMetadata():set(REQUEST, "request", kept)
end

local function request_header(handle, name)
  if not responding[handle] then
    return (pdk.header(handle, name))
  end
  local headers = handle:requestHeaders()
  local value = headers and headers:getAtIndex(name, 0)
  return value
end

local function kept(handle)
  local metadata = handle:streamInfo():dynamicMetadata():get(REQUEST)
  return metadata and metadata.request or {}
end

local function blind(handle)
  return responding[handle] and not handle.requestHeaders
end

function pdk.is_grpc(handle)
  if blind(handle) then
    return kept(handle).grpc == true
  end
  return is_grpc_type(request_header(handle, "content-type"))
end

function pdk.request_id(handle)
  if blind(handle) then
    return kept(handle).id
  end
  return request_header(handle, "x-request-id")
end

-- Whether Envoy turns an answer of ours into gRPC's. It takes fewer types for gRPC, such as not application/grpc-web.
local function answers_grpc(handle)
  local content_type = pdk.header(handle, "content-type")
  return content_type == "application/grpc" or content_type ~= nil and sub(content_type, 1, 17) == "application/grpc+"
end

-- Dynamic metadata.

function pdk.metadata(handle, namespace, key)
  local all = handle:streamInfo():dynamicMetadata():get(namespace)
  if all == nil then
    return nil
  end
  return all[key]
end

function pdk.set_metadata(handle, namespace, key, value)
  handle:streamInfo():dynamicMetadata():set(namespace, key, value)
end

-- Answers.

-- answers notes the plugin that answers in the place of the upstream, for logs. In a coroutine of the plugin's own Envoy
-- has no stream info, so there it is not noted; the answer counts.
local function answers(handle, plugin)
  pcall(pdk.set_metadata, handle, "plugins.istio.io", "rejected_by", plugin)
end

local function checked_status(status)
  status = tonumber(status)
  if not status or status < 200 or status > 599 or status % 1 ~= 0 then
    error("a status is an integer from 200 to 599", 3)
  end
  return status
end

local function checked_headers(headers)
  local out = {}
  for name, value in pairs(headers or {}) do
    checked_name(name)
    if type(value) == "table" then
      out[name] = {}
      for i, v in ipairs(value) do
        out[name][i] = checked_value(name, v)
      end
    else
      out[name] = checked_value(name, value)
    end
  end
  return out
end

local function is_head(handle)
  return pdk.metadata(handle, REQUEST, "head") == true or not blind(handle) and request_header(handle, ":method") == "HEAD"
end

local function has_body(status)
  return status ~= 204 and status ~= 304
end

-- Headers of the upstream's answer that say something about the body that is replaced.
local ABOUT_BODY = {
  "content-type", "content-encoding", "content-language", "content-range", "content-disposition", "content-md5",
  "digest", "repr-digest", "content-digest", "etag", "last-modified", "accept-ranges",
}

local function replace_headers(handle, status, headers)
  local to = handle:headers()
  to:replace(":status", tostring(status))
  for i = 1, #ABOUT_BODY do
    to:remove(ABOUT_BODY[i])
  end
  for name, value in pairs(headers) do
    to:remove(name)
    for _, v in ipairs(type(value) == "table" and value or {value}) do
      to:add(name, v)
    end
  end
end

-- replace puts an answer in the place of the upstream's. The headers come first: body() may yield, which ends them.
local function replace(handle, status, headers, body)
  local streaming = is_streaming(handle)
  replace_headers(handle, status, headers)
  if is_head(handle) then
    handle:headers():remove("content-length")
  elseif streaming then
    handle:headers():remove("content-length")
    draining[handle] = true
  elseif has_body(status) then
    draining[handle] = nil
    handle:body(true):setBytes(body)
  else
    handle:body(true):setBytes("")
    handle:headers():remove("content-length")
  end
end

-- drop_body is for a body that the client must not get. It is dropped when all functions have run.
function pdk.drop_body(handle)
  if not responding[handle] then
    error("a request keeps its body", 2)
  elseif not is_head(handle) then
    handle:headers():remove("content-length")
  end
  draining[handle] = true
end

-- drain empties a body chunk by chunk, for a stream that must not be buffered. The headers leave at the first chunk. A
-- body that a function has buffered has no chunks any more.
local function drain(handle, chunks)
  local ok, next_chunk = pcall(chunks, handle)
  if not ok then
    handle:body():setBytes("")
    return
  end
  for chunk in next_chunk do
    chunk:setBytes("")
  end
end

-- as_json writes a body that is a table.
local function as_json(headers, body)
  local text, problem = json.encode(body)
  if not text then
    error("the body cannot be written as JSON: " .. problem, 3)
  end
  for name in pairs(headers) do
    if lower(name) == "content-type" then
      return text
    end
  end
  headers["content-type"] = JSON
  return text
end

function pdk.exit(handle, status, headers, body)
  status, headers = checked_status(status), checked_headers(headers)
  if type(body) == "table" then
    body = as_json(headers, body)
  end
  if responding[handle] then
    return replace(handle, status, headers, body or "")
  end
  headers[":status"] = tostring(status)
  if not has_body(status) or body == "" then
    body = nil
  end
  handle:respond(headers, body)
end

-- Envoy turns 429 into UNAVAILABLE and 413 into UNKNOWN; both mean that something is exhausted, as Kong says for 429.
local GRPC_STATUS = {[429] = "8", [413] = "8"}

function pdk.fail(handle, status, message, options)
  options = options or {}
  local headers, body = checked_headers(options.headers), message
  if not responding[handle] and answers_grpc(handle) then
    headers["grpc-status"] = headers["grpc-status"] or GRPC_STATUS[status]
  else
    headers["content-type"] = headers["content-type"] or JSON
    local id = options.request_id and pdk.request_id(handle)
    body = '{"message":' .. json.quote(message) .. (id and ',"request_id":' .. json.quote(id) or "") .. "}"
  end
  pdk.exit(handle, status, headers, body)
  error(STOP, 0)
end

return {
  pdk = pdk, checked_headers = checked_headers, is_streaming = is_streaming, keep = keep, drain = drain, answers = answers, answers_grpc = answers_grpc, responding = responding, draining = draining, values = values,
  STOP = STOP, SAVED = SAVED,
}
