-- RFC 4648 base64, both alphabets. Envoy's own base64Decode is not in every supported version.

local bit = require("bit")
local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, concat, find, gsub, sub = string.byte, string.char, table.concat, string.find, string.gsub, string.sub

local STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function encoder(alphabet, padding)
  local digit = {}
  for i = 0, 63 do
    digit[i] = sub(alphabet, i + 1, i + 1)
  end
  return function(text)
    local out, n = {}, 0
    for i = 1, #text, 3 do
      local a, b, c = byte(text, i, i + 2)
      local group = bor(lshift(a, 16), lshift(b or 0, 8), c or 0)
      out[n + 1] = digit[rshift(group, 18)]
      out[n + 2] = digit[band(rshift(group, 12), 63)]
      out[n + 3] = b and digit[band(rshift(group, 6), 63)] or padding
      out[n + 4] = c and digit[band(group, 63)] or padding
      n = n + 4
    end
    return concat(out)
  end
end

-- A decoder accepts text with and without padding, as HTTP clients send both, but nothing else: no white space, no
-- other alphabet, no bits set that the last digit should leave zero. So a value has one unpadded spelling only.
local function decoder(alphabet)
  local number = {}
  for i = 1, 64 do
    number[byte(alphabet, i)] = i - 1
  end
  return function(text)
    local digits = text
    if find(text, "=", 1, true) then
      if #text % 4 ~= 0 then
        return nil
      end
      digits = gsub(text, "==?$", "")
    end
    local rest = #digits % 4
    if rest == 1 then
      return nil
    end
    local out, n = {}, 0
    for i = 1, #digits - rest, 4 do
      local w, x, y, z = byte(digits, i, i + 3)
      w, x, y, z = number[w], number[x], number[y], number[z]
      if not (w and x and y and z) then
        return nil
      end
      local group = bor(lshift(w, 18), lshift(x, 12), lshift(y, 6), z)
      n = n + 1
      out[n] = char(rshift(group, 16), band(rshift(group, 8), 255), band(group, 255))
    end
    if rest == 0 then
      return concat(out)
    end
    local w, x, y = byte(digits, #digits - rest + 1, #digits)
    w, x, y = number[w], number[x], y and number[y]
    if not (w and x) or rest == 3 and not y then
      return nil
    end
    local group = bor(lshift(w, 18), lshift(x, 12), lshift(y or 0, 6))
    if band(group, rest == 2 and 0xFFFF or 0xFF) ~= 0 then
      return nil
    end
    out[n + 1] = rest == 2 and char(rshift(group, 16)) or char(rshift(group, 16), band(rshift(group, 8), 255))
    return concat(out)
  end
end

return {
  encode = encoder(STANDARD, "="),
  decode = decoder(STANDARD),
  encode_url = encoder(URL, ""),
  decode_url = decoder(URL),
}
