-- Bytes as hex digits and back (RFC 4648 section 8, written in lower case).

local char, find, format, gsub = string.char, string.find, string.format, string.gsub

local digits, bytes = {}, {}
for i = 0, 255 do
  local c, d = char(i), format("%02x", i)
  digits[c] = d
  for _, spelling in ipairs({d, d:upper(), d:sub(1, 1):upper() .. d:sub(2), d:sub(1, 1) .. d:sub(2):upper()}) do
    bytes[spelling] = c
  end
end

local function encode(text)
  return (gsub(text, ".", digits))
end

-- decode takes both cases, and nothing but digits.
local function decode(text)
  if #text % 2 ~= 0 or find(text, "%X") then
    return nil
  end
  return (gsub(text, "..", bytes))
end

return {encode = encode, decode = decode}
