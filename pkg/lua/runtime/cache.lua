-- What a plugin remembers between requests, in a bound.

local error, floor, time, type = error, math.floor, os.time, type

local LEAST, USUAL, MOST = 10, 1000, 100000

-- cache returns one of at most `most` entries. Of two generations the older is forgotten when the younger is full, and what
-- is asked for moves to the younger: what goes first has not been used for long.
return function(most)
  most = most == nil and USUAL or most
  if type(most) ~= "number" or most % 1 ~= 0 or most < LEAST or most > MOST then
    error("a cache has " .. LEAST .. " to " .. MOST .. " entries", 2)
  end
  local generation = floor(most / 2)
  local young, old, size = {}, {}, 0
  local cache = {}

  local function forget(key)
    if young[key] then
      young[key], size = nil, size - 1
    end
    old[key] = nil
  end

  local function put(key, entry)
    forget(key)
    if size >= generation then
      young, old, size = {}, young, 0
    end
    young[key], size = entry, size + 1
  end

  -- get returns the value of a key, or nil.
  function cache:get(key)
    local entry = young[key] or old[key]
    if not entry then
      return nil
    elseif entry.ends and entry.ends <= time() then
      forget(key)
      return nil
    elseif not young[key] then
      put(key, entry)
    end
    return entry.value
  end

  -- set keeps a value for so many seconds, without them as long as there is room; nil forgets it.
  function cache:set(key, value, seconds)
    if seconds ~= nil and type(seconds) ~= "number" then
      error("the seconds are a " .. type(seconds) .. ", not a number", 2)
    elseif value == nil then
      forget(key)
    else
      put(key, {value = value, ends = seconds and time() + seconds})
    end
  end

  return cache
end
