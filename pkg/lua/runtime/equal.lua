-- Comparison of secrets.

local bit = require("bit")
local bor, bxor, byte = bit.bor, bit.bxor, string.byte

-- equal takes as long for the first byte that differs as for the last. The length is no secret.
return function(a, b)
  if type(a) ~= "string" or type(b) ~= "string" or #a ~= #b then
    return false
  end
  local difference = 0
  for i = 1, #a do
    difference = bor(difference, bxor(byte(a, i), byte(b, i)))
  end
  return difference == 0
end
