-- access-log: writes fields to dynamic metadata, where the gateway's log format finds them.

local config = ...

local NAMESPACE, KEY = "plugins.istio.io", "log"
local LONGEST = 1024

-- Names of the fields that the request alone decides, and of the others.
local early, late = {}, {}
for name, pieces in pairs(config.fields) do
  local into = early
  for _, piece in ipairs(pieces) do
    if type(piece) == "table" and piece.from ~= "headers" then
      into = late
    end
  end
  into[#into + 1] = name
end

local function headers(handle, name)
  local values = pdk.headers(handle, name)
  return values[1] and table.concat(values, ",")
end

local function consumer(handle, field)
  local known = pdk.consumer(handle)
  if known and field == "groups" then
    return known.groups[1] and table.concat(known.groups, ",")
  end
  return known and known[field]
end

-- What logs can take: they want UTF-8, no end of it, and one line.
local function printable(text)
  if text:find("%c") then
    text = text:gsub("%c", " ")
  end
  if text:find("[\128-\255]") then
    text = pdk.json.decode(pdk.json.encode(text))
  end
  if #text <= LONGEST then
    return text
  end
  local stop = LONGEST
  while text:find("^[\128-\191]", stop + 1) do
    stop = stop - 1
  end
  return text:sub(1, stop)
end

-- The value of a field, or nil where something of it is missing. asked has the request's headers in the response phase.
local function value_of(handle, name, asked)
  local texts = {}
  for i, piece in ipairs(config.fields[name]) do
    local value = piece
    if type(piece) == "table" then
      if piece.from == "consumer" then
        value = consumer(handle, piece.name)
      elseif piece.from == "rejected_by" then
        value = pdk.metadata(handle, NAMESPACE, "rejected_by")
      elseif piece.from == "headers" and asked then
        value = asked[piece.name]
      else
        value = headers(handle, piece.name)
      end
    end
    if value == nil then
      return nil
    end
    texts[i] = value
  end
  return printable(table.concat(texts))
end

local function is_sampled()
  return math.random() * 100 < config.sample
end

-- The headers that late fields need of the request.
local function asked_for(handle)
  local values = {}
  for _, name in ipairs(late) do
    for _, piece in ipairs(config.fields[name]) do
      if type(piece) == "table" and piece.from == "headers" then
        local value = headers(handle, piece.name)
        values[piece.name] = value and printable(value)
      end
    end
  end
  return values
end

-- What is in the log so far. Other plugins may write to this namespace, too.
local function known(handle)
  local log = pdk.metadata(handle, NAMESPACE, KEY)
  return type(log) == "table" and log or {}
end

-- Of several plugins of this kind in a chain, the last one has the last word, here and in the response phase.
local function request(handle)
  local log = known(handle)
  for _, name in ipairs(early) do
    log[name] = value_of(handle, name) or log[name]
  end
  log.sampled = is_sampled()
  pdk.set_metadata(handle, NAMESPACE, KEY, log)
  pdk.save(handle, "headers", asked_for(handle))
end

local function response(handle)
  local log = known(handle)
  local asked = pdk.saved(handle, "headers")
  local function fill(names)
    for _, name in ipairs(names) do
      if log[name] == nil then
        log[name] = value_of(handle, name, asked or {})
      end
    end
  end
  fill(late)
  if not asked then -- A plugin before this one has answered.
    fill(early)
    if log.sampled == nil then
      log.sampled = is_sampled()
    end
  end
  pdk.set_metadata(handle, NAMESPACE, KEY, log)
end

return { request = request, response = response }
