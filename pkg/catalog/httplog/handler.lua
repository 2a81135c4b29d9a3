-- http-log: sends a record of each request to an endpoint.

local config = ...

local redact = config.redact
local REDACTED = "***"

-- Whether the last record was lost.
local losing = false

local function add(into, name, value)
  if redact[name:lower()] then
    value = REDACTED
  end
  local known = into[name]
  if known == nil then
    into[name] = value
  elseif type(known) == "table" then
    known[#known + 1] = value
  else
    into[name] = {known, value}
  end
end

local function headers_of(handle)
  local out = {}
  for name, value in pairs(handle:headers()) do
    if name == ":authority" then
      name = "host"
    end
    if name:sub(1, 1) ~= ":" then
      add(out, name, value)
    end
  end
  return out
end

-- query returns the arguments, and the text without what is redacted.
local function query(text)
  local arguments, raw = {}, {}
  for i, argument in ipairs(pdk.query(text, math.huge)) do
    add(arguments, argument.name, argument.value)
    raw[i] = argument.raw
    if redact[argument.name:lower()] then
      raw[i] = argument.raw:match("^[^=]*") .. "=" .. REDACTED
    end
  end
  return arguments, table.concat(raw, "&")
end

local function size(handle)
  return tonumber(pdk.header(handle, "content-length"))
end

-- A record that comes here must not make another one.
local function is_record(handle, path)
  return pdk.header(handle, ":method") == config.method and path == config.path
    and (pdk.header(handle, ":authority") or ""):lower() == config.host
end

local function request(handle)
  if is_record(handle, pdk.header(handle, ":path")) then
    pdk.save(handle, "record", true)
    return
  end
  local path, text = pdk.path(handle)
  local arguments
  arguments, text = query(text)
  local uri = text ~= "" and path .. "?" .. text or path
  pdk.save(handle, "begin", pdk.json.encode({
    started_at = handle:timestamp(),
    request = {
      method = pdk.header(handle, ":method"),
      uri = uri,
      url = (pdk.header(handle, ":scheme") or "http") .. "://" .. (pdk.header(handle, ":authority") or "") .. uri,
      size = size(handle),
      headers = headers_of(handle),
      querystring = arguments,
    },
  }))
end

local function consumer(handle)
  local known = pdk.consumer(handle)
  return known and {id = known.id, username = known.username, custom_id = known.custom_id}
end

local function response(handle)
  if pdk.saved(handle, "record") then
    return
  end
  local record = pdk.json.encode({
    response = {status = tonumber(pdk.header(handle, ":status")), size = size(handle), headers = headers_of(handle)},
    latencies = {proxy = tonumber(pdk.header(handle, "x-envoy-upstream-service-time"))},
    client_ip = pdk.client_ip(handle),
    consumer = consumer(handle),
    route = {name = pdk.route(handle)},
  })
  local begin = pdk.saved(handle, "begin")
  if begin then
    record = begin:sub(1, -2) .. "," .. record:sub(2)
  end
  local sent = pdk.send(handle, "endpoint", {
    method = config.method, path = config.path, headers = config.headers, body = record,
    timeout = config.timeout, in_flight = config.in_flight,
  })
  if not sent and not losing then
    pdk.log(handle, "warn", "records are lost: " .. config.in_flight .. " are under way")
  end
  losing = not sent
end

return { request = request, response = response }
