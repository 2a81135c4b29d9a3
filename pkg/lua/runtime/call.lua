-- Calls to the services that a plugin declares. A service is {cluster, authority}.

local modules = ...
local report, stream = modules.report, modules.stream
local pdk, responding = stream.pdk, stream.responding

local error, next, pairs, pcall, tonumber, type = error, next, pairs, pcall, tonumber, type
local find, lower, sub = string.find, string.lower, string.sub
local huge, min = math.huge, math.min

local WAIT = {method = true, path = true, headers = true, body = true, timeout = true}
local SEND = {method = true, path = true, headers = true, body = true, timeout = true, in_flight = true}

-- Milliseconds.
local USUAL_TIMEOUT, LONGEST_TIMEOUT = 5000, 300000

-- Calls that nobody waits for, to one service. The most is what can be looked through every millisecond.
local USUALLY_IN_FLIGHT, MOST_IN_FLIGHT = 100, 1000

-- Headers that say how a message is sent. They are Envoy's to write.
local TRANSPORT = {
  connection = true, ["content-length"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, te = true,
  trailer = true, ["transfer-encoding"] = true, upgrade = true,
}

-- Handles of request phases that have waited for a call.
local called = setmetatable({}, {__mode = "k"})

local function declared(services, name)
  local service = services and services[name]
  if not service then
    error("this plugin declares no service " .. (type(name) == "string" and name or "that is a " .. type(name)), 3)
  end
  return service
end

local function refuse(problem)
  error("the call " .. problem, 4)
end

local function outside(value, most)
  return type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > most
end

-- message returns what Envoy wants for a call: headers, body, timeout; and how many may be in flight.
local function message(service, request, fields)
  for field in pairs(request) do
    if not fields[field] then
      refuse("has an unknown field " .. report.describe(field))
    end
  end
  local headers = {[":authority"] = service[2]}
  for name, value in pairs(stream.checked_headers(request.headers)) do
    name = lower(name)
    if sub(name, 1, 1) == ":" or TRANSPORT[name] or name == "host" and type(value) ~= "string" then
      refuse("cannot have this header " .. name)
    end
    headers[name == "host" and ":authority" or name] = value
  end
  local method, path, body = request.method or "GET", request.path or "/", request.body
  local timeout, in_flight = request.timeout or USUAL_TIMEOUT, request.in_flight or USUALLY_IN_FLIGHT
  -- A blank or a line break would end the request line, and what follows would be the service's to understand.
  if type(method) ~= "string" or not find(method, "^[%w!#$%%&'*+%-.^_`|~]+$") then
    refuse("has no method")
  elseif type(path) ~= "string" or not find(path, "^/[^%c ]*$") then
    refuse("has no path: it begins with / and has no blanks")
  elseif body ~= nil and type(body) ~= "string" then
    refuse("has a body that is a " .. type(body) .. ", not a string")
  elseif outside(timeout, LONGEST_TIMEOUT) then
    refuse("has a timeout that is no integer from 1 to " .. LONGEST_TIMEOUT)
  elseif outside(in_flight, MOST_IN_FLIGHT) then
    refuse("has an in_flight that is no integer from 1 to " .. MOST_IN_FLIGHT)
  end
  headers[":method"], headers[":path"] = method, path
  return headers, body, timeout, in_flight
end

-- start calls a service. What Envoy refuses is most often a service that this gateway does not know.
local function start(handle, name, service, ...)
  local ok, headers, body = pcall(stream.own.httpCall, handle, service[1], ...)
  if not ok then
    error("service " .. name .. " cannot be called: " .. headers, 0)
  end
  return headers, body
end

-- answered makes an answer of Envoy's. Where the service did not give it, Envoy says why in the body, or to gRPC in a header,
-- and there is no header with the time that the service took.
local function answered(name, headers, body)
  if not headers["x-envoy-upstream-service-time"] then
    local why = body or headers["grpc-message"] or "status " .. headers[":status"]
    error("service " .. name .. " does not answer: " .. why, 0)
  end
  local out = {status = tonumber(headers[":status"]), headers = {}, body = body or ""}
  for key, value in next, headers do
    if sub(key, 1, 1) ~= ":" and not TRANSPORT[key] then
      out.headers[key] = value
    end
  end
  return out
end

-- wait calls a service and returns its answer.
local function wait(handle, name, service, request)
  local headers, body, timeout = message(service, request or {}, WAIT)
  if not responding[handle] then
    called[handle] = true
  elseif stream.is_streaming(handle) then
    -- The response could not be replaced any more if its body came during the call, nor be read by others.
    error("a response that may not end cannot wait for a call", 2)
  else
    handle:body()
  end
  return answered(name, start(handle, name, service, headers, body, {
    timeout_ms = timeout, return_duplicate_headers = true,
  }))
end

-- The ends of the calls that nobody waits for, by cluster, and the first of them. Envoy does not tell when such a call
-- ends, so it counts until its timeout.
local flights = {}

-- room returns the ends of the calls to a cluster if another one may start.
local function room(now, cluster, most)
  local ends = flights[cluster] or {first = huge}
  if #ends >= most and ends.first <= now then
    local later = {first = huge}
    for i = 1, #ends do
      if ends[i] > now then
        later[#later + 1] = ends[i]
        later.first = min(later.first, ends[i])
      end
    end
    ends = later
  end
  flights[cluster] = ends
  return #ends < most and ends or nil
end

-- send calls a service and does not wait. It returns false where too many calls are on their way.
local function send(handle, name, service, request)
  local headers, body, timeout, most = message(service, request or {}, SEND)
  local now = handle:timestamp()
  local ends = room(now, service[1], most)
  if not ends then
    return false
  end
  start(handle, name, service, headers, body, {timeout_ms = timeout, asynchronous = true})
  ends[#ends + 1] = now + timeout
  ends.first = min(ends.first, now + timeout)
  return true
end

return {declared = declared, wait = wait, send = send, called = called}
