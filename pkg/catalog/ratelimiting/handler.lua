-- Rate limiting around Envoy's local_ratelimit filters, one per window, which stand right behind this chunk.
-- The request function says who is counted. The response function turns what the filters report into Kong's headers.

local config = ...

local ipairs, tonumber = ipairs, tonumber
local byte, format, gsub = string.byte, string.format, string.gsub

-- The name under which rate limiters of one request find each other's metadata; `id` in it is this one's.
local namespace, id = config.namespace, config.id

local function request(handle)
  pdk.set_metadata(handle, namespace, id, limits.identity(handle))
end

-- The number of the window that refused, or nil. Only a refusal carries the marker, which never leaves the gateway.
local function refusing_window(handle)
  for _, value in ipairs(pdk.headers(handle, config.marker)) do
    for i, window in ipairs(config.windows) do
      if value == id .. "." .. window.name then
        return i
      end
    end
  end
end

-- Takes the last `count` lines of a header away, those before them stay: they are the upstream's.
local function take(handle, name, count)
  local lines = pdk.headers(handle, name)
  local rest = #lines - count
  pdk.remove_header(handle, name)
  for i = 1, rest do
    pdk.add_header(handle, name, lines[i])
  end
  local taken = {}
  for i = 1, count do
    taken[i] = tonumber(lines[rest + i])
  end
  return taken
end

-- What each of the first `asked` windows reported. Filters see the response in reverse, so the longest comes first.
local function reports(handle, asked)
  if #pdk.headers(handle, "x-ratelimit-limit") < asked then
    return {} -- the filters did not run: something between them and this chunk answered
  end
  local limits = take(handle, "x-ratelimit-limit", asked)
  local remaining = take(handle, "x-ratelimit-remaining", asked)
  local resets = take(handle, "x-ratelimit-reset", asked)
  local out = {}
  for i = 1, asked do
    local window = config.windows[asked + 1 - i]
    out[i] = {
      name = window.name, seconds = window.seconds,
      limit = limits[i], remaining = remaining[i], reset = resets[i],
    }
  end
  return out
end

local function percent(c)
  return format("%%%02X", byte(c))
end

local function response(handle)
  if not pdk.metadata(handle, namespace, id) then
    return -- an earlier plugin answered, nothing was counted
  end
  local refusing = refusing_window(handle)
  local own = reports(handle, refusing or #config.windows)
  if not config.hide_client_headers then
    limits.inform(handle, own, refusing ~= nil)
  end
  if not refusing then
    return
  end
  pdk.remove_header(handle, config.marker)
  pdk.remove_header(handle, "x-envoy-ratelimited")
  if pdk.header(handle, "grpc-status") then
    -- Envoy has worded the refusal for a gRPC client already, but for the message, which is percent-encoded there.
    pdk.set_header(handle, "grpc-message", (gsub(config.error_message, "[^ -$&-~]", percent)))
    return
  end
  pdk.fail(handle, config.error_code, config.error_message, {request_id = true})
end

return {request = request, response = response}
