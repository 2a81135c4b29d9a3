-- IP addresses and ranges of them, as RFC 4291 and RFC 4632 write them.
--
-- An address is 16 bytes here, those of IPv4 as IPv4-mapped ones (::ffff:a.b.c.d), so that one comparison serves both.

local bit = require("bit")
local band = bit.band
local byte, char, find, floor, gmatch, match, rep, sub =
  string.byte, string.char, string.find, math.floor, string.gmatch, string.match, string.rep, string.sub
local concat, error, ipairs, pairs, tonumber, type = table.concat, error, ipairs, pairs, tonumber, type

local MAPPED = rep("\0", 10) .. "\255\255"

-- The four bytes of an IPv4 address, or nil. A leading zero would be octal to some.
local function four(text)
  local out = {}
  for i, part in ipairs({match(text, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$")}) do
    local n = tonumber(part)
    if n > 255 or #part > 1 and byte(part) == 48 then
      return nil
    end
    out[i] = char(n)
  end
  return out[4] and concat(out)
end

-- The bytes of groups with colons between them, or nil. The last one may be an IPv4 address.
local function groups(text)
  if text == "" then
    return ""
  end
  local out, n = {}, 0
  for group, colon in gmatch(text .. ":", "([^:]*)(:)") do
    n = n + 1
    if find(group, "^%x%x?%x?%x?$") then
      local value = tonumber(group, 16)
      out[n] = char(floor(value / 256), value % 256)
    else
      out[n] = four(group)
    end
    if not out[n] or n > 1 and #out[n - 1] == 4 then
      return nil
    end
  end
  return concat(out)
end

-- The sixteen bytes of an IPv6 address, or nil. `::` stands for at least one group of zeros.
local function sixteen(text)
  local before, after = match(text, "^(.-)::(.*)$")
  if not before then
    local all = groups(text)
    return all and #all == 16 and all or nil
  end
  local head, tail = groups(before), groups(after)
  if not head or not tail or find(before, ".", 1, true) or #head + #tail > 14 then
    return nil
  end
  return head .. rep("\0", 16 - #head - #tail) .. tail
end

-- bytes_of returns an address and whether it is written as IPv4; or nil.
local function bytes_of(text)
  if type(text) ~= "string" or #text > 45 then
    return nil
  end
  local ipv4 = four(text)
  if ipv4 then
    return MAPPED .. ipv4, true
  end
  return find(text, ":", 1, true) and sixteen(text) or nil
end

-- parse returns the 4 or 16 bytes of an address, or nil. An IPv4-mapped one is the IPv4 address.
local function parse(text)
  local bytes = bytes_of(text)
  if bytes and sub(bytes, 1, 12) == MAPPED then
    return sub(bytes, 13)
  end
  return bytes
end

-- first keeps the first bits of an address: whole bytes, and what is left of one.
local function first(bytes, bits)
  local whole, rest = floor(bits / 8), bits % 8
  if rest == 0 then
    return sub(bytes, 1, whole)
  end
  return sub(bytes, 1, whole) .. char(band(byte(bytes, whole + 1), 256 - 2 ^ (8 - rest)))
end

-- range_of returns the address and the bits of a range; or nil.
local function range_of(text)
  local address, length = text, nil
  if type(text) == "string" and find(text, "/", 1, true) then
    address, length = match(text, "^([^/]*)/(%d%d?%d?)$")
  end
  local bytes, ipv4 = bytes_of(address)
  if not bytes or length and #length > 1 and byte(length) == 48 then
    return nil
  end
  local bits = (tonumber(length) or ipv4 and 32 or 128) + (ipv4 and 96 or 0)
  if bits > 128 then
    return nil
  end
  return bytes, bits
end

-- ranges returns a function that says whether an address is in one of a list of addresses and ranges. It looks once for
-- each length that there is.
local function ranges(list)
  local by_length = {}
  if type(list) ~= "table" then
    error("a list of IP addresses and ranges is needed, not a " .. type(list), 2)
  end
  for _, text in ipairs(list) do
    local bytes, bits = range_of(text)
    if not bytes then
      error("not an IP address or range: " .. (type(text) == "string" and text or "a " .. type(text)), 2)
    end
    by_length[bits] = by_length[bits] or {}
    by_length[bits][first(bytes, bits)] = true
  end
  return function(text)
    local bytes, ipv4 = bytes_of(text)
    if not bytes then
      return false
    end
    for bits, known in pairs(by_length) do
      -- A shorter range is one of IPv6, in which no IPv4 address is, although that would be in its bytes.
      if (bits >= 96 or not ipv4) and known[first(bytes, bits)] then
        return true
      end
    end
    return false
  end
end

return {parse = parse, ranges = ranges}
