-- Rate limiting around Envoy's local_ratelimit filters, one per window, which stand right behind this chunk.
-- The request function says who is counted. The response function turns what the filters report into Kong's headers.

local config = ...

local ipairs, tonumber = ipairs, tonumber
local byte, find, format, gsub = string.byte, string.find, string.format, string.gsub
local max = math.max

-- The name under which rate limiters of one request find each other's metadata; `id` in it is this one's.
local namespace, id = config.namespace, config.id

-- Longer texts, and those that are not plain ASCII, are counted under their hash.
local MAX_PLAIN = 64

local function plain(kind, text)
  if #text > MAX_PLAIN or find(text, "[^\32-\126]") then
    return kind .. "#" .. pdk.sha256(text)
  end
  return kind .. ":" .. text
end

local sources = {
  consumer = function(handle)
    local consumer = pdk.consumer(handle)
    return consumer and consumer.id
  end,
  credential = function(handle)
    local consumer = pdk.consumer(handle)
    return consumer and consumer.credential_id -- the anonymous one has none
  end,
  header = function(handle)
    return pdk.headers(handle, config.header_name)[1]
  end,
  path = function(handle)
    local path = pdk.path(handle)
    return path == config.path and path or nil
  end,
  service = function()
    return ""
  end,
}

local source = sources[config.limit_by]

local function identity(handle)
  local text = source and source(handle)
  if text then
    return plain(config.limit_by, text)
  end
  return plain("ip", pdk.client_ip(handle) or "")
end

local function request(handle)
  local who = identity(handle)
  if config.per_route then
    who = plain("route", pdk.route(handle)) .. " " .. who
  end
  pdk.set_metadata(handle, namespace, id, who)
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

-- Whether report a is the one to tell rather than b: the least remaining, of equals the longer window.
local function tighter(a, b)
  if a.remaining ~= b.remaining then
    return a.remaining < b.remaining
  end
  if a.seconds ~= b.seconds then
    return a.seconds > b.seconds
  end
  return a.reset > b.reset
end

local function tell(handle, name, report)
  pdk.set_header(handle, "x-ratelimit-limit-" .. name, format("%d", report.limit))
  pdk.set_header(handle, "x-ratelimit-remaining-" .. name, format("%d", report.remaining))
end

-- Writes the client's headers. Other rate limiters of the request, whose response functions ran before, have left
-- what they told in the metadata; of each window, and of all, the tightest is told.
local function inform(handle, own, refused)
  local told = pdk.metadata(handle, namespace, "told") or {windows = {}}
  for _, report in ipairs(own) do
    local other = told.windows[report.name]
    if not other or tighter(report, other) then
      told.windows[report.name] = report
      tell(handle, report.name, report)
    end
    if not told.tightest or tighter(report, told.tightest) then
      told.tightest = report
    end
  end
  told.refused = told.refused or refused
  local tightest = told.tightest
  if not tightest then
    return
  end
  pdk.set_metadata(handle, namespace, "told", told)
  pdk.set_header(handle, "ratelimit-limit", format("%d", tightest.limit))
  pdk.set_header(handle, "ratelimit-remaining", format("%d", tightest.remaining))
  pdk.set_header(handle, "ratelimit-reset", format("%d", tightest.reset))
  if told.refused then
    pdk.set_header(handle, "retry-after", format("%d", max(1, tightest.reset)))
  end
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
    inform(handle, own, refusing ~= nil)
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
