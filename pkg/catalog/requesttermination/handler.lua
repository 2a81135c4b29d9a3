-- request-termination: the gateway answers.

local config = ...

local REDACTED = "[redacted]"

-- Of HTTP/2 Envoy holds 16 MiB, which would keep the worker from all other requests for seconds.
local LARGEST = 1048576

-- Names of headers, arguments and fields that echo does not show, in lower case.
local secret = { authorization = true, ["proxy-authorization"] = true, cookie = true }
for _, name in ipairs(config.redact or {}) do
  secret[name:lower()] = true
end

local function show(name, value)
  return secret[name:lower()] and REDACTED or value
end

-- Adds a value to a map in which a repeated name has a list.
local function collect(into, name, value)
  local before = into[name]
  if before == nil then
    into[name] = value
  elseif type(before) == "table" then
    before[#before + 1] = value
  else
    into[name] = pdk.json.array({ before, value })
  end
end

local function arguments(text)
  local shown, redacted = {}, false
  for _, argument in ipairs(pdk.query(text, math.huge)) do
    collect(shown, argument.name, show(argument.name, argument.value))
    redacted = redacted or secret[argument.name:lower()]
  end
  return shown, redacted
end

local function headers(handle)
  local shown = {}
  for name, value in pairs(handle:headers()) do
    if name:sub(1, 1) ~= ":" then
      collect(shown, name, show(name, value))
    end
  end
  shown.host = pdk.header(handle, ":authority")
  return shown
end

-- A JSON value without the members that have a secret's name, at whatever depth, and whether there was one.
local function redact(value)
  if type(value) ~= "table" then
    return value, false
  end
  local redacted = false
  for name, member in pairs(value) do
    if type(name) == "string" and secret[name:lower()] then
      value[name], redacted = REDACTED, true
    else
      local _, inside = redact(member)
      redacted = redacted or inside
    end
  end
  return value, redacted
end

-- Whether what follows is no body, or one that does not end before the upstream has answered. An upgrade without a length
-- has none, and Envoy takes `upgrade` away from requests that are none.
local function is_stream(handle)
  return pdk.is_grpc(handle) or pdk.header(handle, "upgrade") and (pdk.header(handle, "content-length") or "0") == "0"
end

-- The body as it is and, for a form or JSON, what it says.
local function body(handle)
  local content_type = (pdk.header(handle, "content-type") or ""):match("^%s*([^;%s]*)"):lower()
  if is_stream(handle) then
    return nil, nil
  end
  local buffer = handle:body()
  local length = buffer and buffer:length() or 0
  if length > LARGEST then
    pdk.fail(handle, 413, "Request size limit exceeded", { request_id = true })
  end
  local raw = length > 0 and buffer:getBytes(0, length) or ""
  local parsed, redacted
  if content_type == "application/x-www-form-urlencoded" then
    parsed, redacted = arguments(raw)
  elseif content_type == "application/json" then
    parsed, redacted = redact((pdk.json.decode(raw)))
  end
  return redacted and REDACTED or raw, parsed
end

-- Splits `host:port`, where an IPv6 host is in brackets.
local function split_authority(text)
  local host, port = text:match("^(.-):(%d+)$")
  if host and (not host:find(":", 1, true) or host:sub(-1) == "]") then
    return host, tonumber(port)
  end
  return text, nil
end

local function echo(handle)
  local path, query = pdk.path(handle)
  local node, port = split_authority(handle:streamInfo():downstreamLocalAddress())
  local host = split_authority(pdk.header(handle, ":authority") or "")
  local answer = {
    message = config.message,
    gateway = { node = node },
    request = {
      scheme = pdk.header(handle, ":scheme"),
      host = host,
      port = port,
      method = pdk.header(handle, ":method"),
      path = path,
      headers = headers(handle),
      query = arguments(query),
    },
    matched_route = pdk.route(handle),
  }
  answer.request.raw_body, answer.request.body = body(handle)
  local text = pdk.json.encode(answer)
  if not text then -- a body that is nested too deeply to be part of something
    answer.request.body = nil
    text = pdk.json.encode(answer)
  end
  pdk.exit(handle, config.status, { ["content-type"] = "application/json; charset=utf-8" }, text)
end

-- Whether the request has the header or the argument that asks for the answer.
local function triggered(handle)
  local name = config.trigger
  if not name or pdk.header(handle, name) then
    return true
  end
  local _, query = pdk.path(handle)
  for _, argument in ipairs(pdk.query(query, math.huge)) do
    if argument.name == name then
      return true
    end
  end
  return false
end

local function request(handle)
  if not triggered(handle) then
    return
  end
  if config.echo then
    echo(handle)
  elseif config.body then
    pdk.exit(handle, config.status, { ["content-type"] = config.content_type }, config.body)
  elseif config.message then
    pdk.fail(handle, config.status, config.message)
  else
    pdk.exit(handle, config.status)
  end
end

return { request = request }
