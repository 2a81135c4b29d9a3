-- Rate limiting by a service that counts for all gateways, Envoy's RateLimitService: the request function asks it once about
-- all windows and compares with the limits, the response function tells the client.

local config = ...

local error, ipairs, pcall = error, ipairs, pcall
local byte, char, sub = string.byte, string.char, string.sub
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

-- Protocol buffers, as far as the question and the answer need them.

local function varint(n)
  local out = ""
  while n >= 128 do
    out = out .. char(n % 128 + 128)
    n = floor(n / 128)
  end
  return out .. char(n)
end

local function text(field, bytes)
  return varint(field * 8 + 2) .. varint(#bytes) .. bytes
end

local function read_varint(bytes, at)
  local n, factor = 0, 1
  repeat
    local b = byte(bytes, at) or error("it ends too early", 0)
    n, factor, at = n + b % 128 * factor, factor * 128, at + 1
  until b < 128
  return n, at
end

-- The length of a field with a fixed one, by its wire type.
local FIXED = { [1] = 8, [5] = 4 }

-- The values of a message, a list for each field.
local function read(bytes)
  local fields, at = {}, 1
  while at <= #bytes do
    local tag, value
    tag, at = read_varint(bytes, at)
    local field, kind = floor(tag / 8), tag % 8
    if kind == 0 then
      value, at = read_varint(bytes, at)
    else
      local length = FIXED[kind]
      if kind == 2 then
        length, at = read_varint(bytes, at)
      elseif not length then
        error("it is no protocol buffer", 0)
      end
      if at + length - 1 > #bytes then
        error("it ends too early", 0)
      end
      value, at = sub(bytes, at, at + length - 1), at + length
    end
    local list = fields[field] or {}
    fields[field] = list
    list[#list + 1] = value
  end
  return fields
end

local function first(fields, field, otherwise)
  return fields[field] and fields[field][1] or otherwise
end

-- The question: RateLimitRequest{domain = 1, descriptors = 2}, RateLimitDescriptor{entries = 1}, Entry{key = 1, value = 2}.

local function entry(key, value)
  return text(1, text(1, key) .. text(2, value))
end

-- Whose counters they are: an entry's, or those of all entries that have the Plugin's config in common.
local id = config.counter or config.id

local domain = text(1, config.domain)
local begins = {}
for i, window in ipairs(config.windows) do
  begins[i] = entry("plugin", id) .. entry("window", window.name)
end

-- A message of gRPC is not compressed, and has its length in front.
local function framed(message)
  local n = #message
  return "\0" .. char(floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256) .. message
end

local function question(who)
  local message = domain
  for i, begin in ipairs(begins) do
    message = message .. text(2, begin .. entry("identity", who))
  end
  return framed(message)
end

-- The answer: RateLimitResponse{statuses = 2}, DescriptorStatus{code = 1, current_limit = 2, limit_remaining = 3,
-- duration_until_reset = 4}, RateLimit{requests_per_unit = 1}, Duration{seconds = 1, nanos = 2}.

local OVER_LIMIT = 2

-- What is told of a window, and whether it refuses. The service's limit is as high as it can be, so that what remains of
-- it says how many requests were counted.
local function report(window, own, status)
  local current = first(status, 2)
  if not current then
    error("it has no limit for the " .. window.name .. " in the domain " .. config.domain, 0)
  end
  local most, rest = first(read(current), 1, 0), read(first(status, 4, ""))
  local limit, count = min(own, most), most - first(status, 3, 0)
  return {
    name = window.name, seconds = window.seconds, limit = limit, remaining = max(0, limit - count),
    reset = ceil(first(rest, 1, 0) + first(rest, 2, 0) / 1e9),
  }, count > limit or first(status, 1) == OVER_LIMIT
end

-- The reports of all windows, and whether one of them refuses.
local function understood(answer)
  local status = answer.headers["grpc-status"] or "0"
  if answer.status ~= 200 then
    error("it answers " .. answer.status, 0)
  elseif status ~= "0" then
    error("it answers grpc-status " .. status .. " " .. (answer.headers["grpc-message"] or ""), 0)
  elseif byte(answer.body) ~= 0 then
    error("it gives no answer that can be read", 0)
  end
  local statuses = read(sub(answer.body, 6))[2] or {}
  local reports, refused = {}, false
  for i, window in ipairs(config.windows) do
    local refuses
    reports[i], refuses = report(window, config.limits[i], read(statuses[i] or ""))
    refused = refused or refuses
  end
  return reports, refused
end

local function ask(handle, who)
  return understood(pdk.call(handle, "limits", {
    method = "POST", path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
    headers = { ["content-type"] = "application/grpc" }, body = question(who), timeout = config.timeout,
  }))
end

local function identity(handle)
  local who = limits.identity(handle)
  return config.common and who or (pdk.virtual_service(handle) or "") .. " " .. who
end

-- Why the last request could not be counted; nil where it could. A service that is down must not fill the log.
local failing

local function request(handle)
  local who = identity(handle)
  if config.common then
    local counted = id .. " " .. who
    if pdk.metadata(handle, config.namespace, counted) then
      return -- another entry of the chain has asked, and was let pass
    end
    pdk.set_metadata(handle, config.namespace, counted, true)
  end
  local asked, reports, refused = pcall(ask, handle, who)
  if not asked then
    if reports ~= failing or not config.fault_tolerant then
      pdk.log(handle, config.fault_tolerant and "warn" or "error", "not counted: rate limit service: " .. reports)
    end
    failing = reports
    if not config.fault_tolerant then -- also under FailOpen, which an error would skip
      pdk.fail(handle, 500, "An unexpected error occurred", { request_id = true })
    end
    return
  end
  if failing then
    pdk.log(handle, "warn", "counted again")
    failing = nil
  end
  pdk.save(handle, "counted", { reports = reports, refused = refused })
  if refused then
    pdk.fail(handle, config.error_code, config.error_message, { request_id = true })
  end
end

local function response(handle)
  local counted = pdk.saved(handle, "counted")
  if counted and not config.hide_client_headers then
    limits.inform(handle, counted.reports, counted.refused)
  end
end

return { request = request, response = response }
