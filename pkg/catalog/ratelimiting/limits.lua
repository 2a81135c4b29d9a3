-- What rate limiters share, wherever they count: who is counted, and what clients are told.

local config = ...

local ipairs = ipairs
local find, format = string.find, string.format
local max = math.max

local limits = {}

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

-- Who is counted, as plain text.
function limits.identity(handle)
  local text = source and source(handle)
  local who = text and plain(config.limit_by, text) or plain("ip", pdk.client_ip(handle) or "")
  if config.per_route then
    who = plain("route", pdk.route(handle)) .. " " .. who
  end
  return who
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
function limits.inform(handle, own, refused)
  local told = pdk.metadata(handle, config.namespace, "told") or {windows = {}}
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
  pdk.set_metadata(handle, config.namespace, "told", told)
  pdk.set_header(handle, "ratelimit-limit", format("%d", tightest.limit))
  pdk.set_header(handle, "ratelimit-remaining", format("%d", tightest.remaining))
  pdk.set_header(handle, "ratelimit-reset", format("%d", tightest.reset))
  if told.refused then
    pdk.set_header(handle, "retry-after", format("%d", max(1, tightest.reset)))
  end
end

return limits
