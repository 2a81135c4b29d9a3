-- Percent-encoding and query strings, as bytes.

local char, format = string.char, string.format
local find, gmatch, gsub, lower, match, sub = string.find, string.gmatch, string.gsub, string.lower, string.match, string.sub

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

-- The host and the port of an authority, or nil.
local function host_and_port(text)
  local host, port = match(text, "^%[([%x:.]+)%](.*)$")
  if not host then
    host, port = match(text, "^([^:%[%]]*)(.*)$")
  end
  local number = tonumber(match(port, "^:(%d+)$"))
  if number and number > 65535 or not number and port ~= "" and port ~= ":" then
    return nil
  end
  return lower(host), number
end

-- parse takes a URL, or a reference to one, apart (RFC 3986, appendix B). What it does not have is nil, but for the path.
-- Nothing is decoded. It returns nil for what has other characters than a URL may have: others would read it otherwise.
local function parse(text)
  if type(text) ~= "string" or find(text, "[^%w%-._~:/?#%[%]@!$&'()*+,;=%%]") then
    return nil
  end
  local out = {}
  local rest, fragment = match(text, "^([^#]*)#?(.*)$")
  out.fragment = find(text, "#", 1, true) and fragment or nil
  local before, query = match(rest, "^([^?]*)%?(.*)$")
  out.query, rest = query, before or rest
  local scheme, behind = match(rest, "^(%a[%w+.-]*):(.*)$")
  out.scheme, rest = scheme and lower(scheme), behind or rest
  local authority, path = match(rest, "^//([^/]*)(.*)$")
  if not authority then
    out.path = rest
    return out
  end
  local userinfo, host = match(authority, "^(.*)@(.*)$")
  out.userinfo = userinfo
  out.host, out.port = host_and_port(host or authority)
  out.path = path
  return out.host and out or nil
end

return {decode = decode, encode = encode, query = query, parse = parse}
