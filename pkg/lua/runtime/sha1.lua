-- SHA-1 (FIPS 180-4), for protocols that ask for it. Collisions of SHA-1 are known; its HMAC is not broken by them.

local modules = ...
local padded = modules.padding(64, 8)

local bit = require("bit")
local band, bnot, bxor, rol, tobit = bit.band, bit.bnot, bit.bxor, bit.rol, bit.tobit
local byte, tohex = string.byte, bit.tohex

-- The message schedule. One table for all calls: no call yields, so none sees another's.
local W = {}

local function schedule(text, at)
  for i = 1, 16 do
    local a, b, c, d = byte(text, at, at + 3)
    W[i] = tobit(a * 0x1000000 + b * 0x10000 + c * 0x100 + d)
    at = at + 4
  end
  for i = 17, 80 do
    W[i] = rol(bxor(W[i - 3], W[i - 8], W[i - 14], W[i - 16]), 1)
  end
end

local function choose(x, y, z)
  return bxor(band(x, y), band(bnot(x), z))
end

local function parity(x, y, z)
  return bxor(x, y, z)
end

local function majority(x, y, z)
  return bxor(band(x, y), band(x, z), band(y, z))
end

-- rounds are twenty steps that have their function and constant in common.
local function rounds(from, f, k, a, b, c, d, e)
  for i = from, from + 19 do
    a, b, c, d, e = tobit(rol(a, 5) + f(b, c, d) + e + k + W[i]), a, rol(b, 30), c, d
  end
  return a, b, c, d, e
end

return function(text)
  local message = padded(text)
  local h1, h2, h3, h4, h5 = 0x67452301, tobit(0xefcdab89), tobit(0x98badcfe), 0x10325476, tobit(0xc3d2e1f0)
  for at = 1, #message, 64 do
    schedule(message, at)
    local a, b, c, d, e = rounds(1, choose, 0x5a827999, h1, h2, h3, h4, h5)
    a, b, c, d, e = rounds(21, parity, 0x6ed9eba1, a, b, c, d, e)
    a, b, c, d, e = rounds(41, majority, 0x8f1bbcdc, a, b, c, d, e)
    a, b, c, d, e = rounds(61, parity, 0xca62c1d6, a, b, c, d, e)
    h1, h2, h3, h4, h5 = tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d), tobit(h5 + e)
  end
  return tohex(h1) .. tohex(h2) .. tohex(h3) .. tohex(h4) .. tohex(h5)
end
