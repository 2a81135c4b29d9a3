-- Percent-encoding and query strings, as bytes.

local char, format = string.char, string.format
local find, gmatch, gsub, sub = string.find, string.gmatch, string.gsub, string.sub

local function byte_of(hex)
  return char(tonumber(hex, 16))
end

-- decode undoes percent-encoding. A `%` that two hex digits do not follow stays as it is, as Kong leaves it.
local function decode(text, plus)
  if plus then
    text = gsub(text, "+", " ")
  end
  if not find(text, "%", 1, true) then
    return text
  end
  return (gsub(text, "%%(%x%x)", byte_of))
end

local function escaped(c)
  return format("%%%02X", c:byte())
end

-- encode leaves RFC 3986's unreserved characters alone.
local function encode(text)
  return (gsub(text, "[^%w%-._~]", escaped))
end

-- Kong reads as many, and so does OpenResty: a request of a million arguments costs no more than one of these.
local MOST_ARGUMENTS = 100

local function argument(raw)
  local equals = find(raw, "=", 1, true)
  if not equals then
    return {name = decode(raw, true), value = true, raw = raw}
  end
  return {name = decode(sub(raw, 1, equals - 1), true), value = decode(sub(raw, equals + 1), true), raw = raw}
end

-- query splits a query string, or a form body. Nothing between two `&` is no argument.
local function query(text, most)
  local arguments, n = {}, 0
  if text == nil then
    return arguments
  end
  most = most or MOST_ARGUMENTS
  for raw in gmatch(text, "[^&]+") do
    if n >= most then
      break
    end
    n = n + 1
    arguments[n] = argument(raw)
  end
  return arguments
end

return {decode = decode, encode = encode, query = query}
