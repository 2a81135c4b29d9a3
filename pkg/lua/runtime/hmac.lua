-- HMAC (RFC 2104) with the digests of FIPS 180-4.

local modules = ...
local unhex = modules.hex.decode

local bxor = require("bit").bxor
local char, gsub, rep = string.char, string.gsub, string.rep

-- The digests, with the size of their blocks.
local ALGORITHMS = {
  sha1 = {modules.sha1, 64},
  sha256 = {modules.sha256, 64},
  sha384 = {modules.sha512.sha384, 128},
  sha512 = {modules.sha512.sha512, 128},
}

-- masks are what each byte becomes with a constant: a key is xored with one constant inside and with another outside.
local function masks(constant)
  local out = {}
  for i = 0, 255 do
    out[char(i)] = char(bxor(i, constant))
  end
  return out
end

local INNER, OUTER = masks(0x36), masks(0x5c)

return function(algorithm, key, text)
  local known = ALGORITHMS[algorithm]
  if not known then
    error("no algorithm of hmac: " .. modules.report.describe(algorithm), 2)
  end
  local digest, block = known[1], known[2]
  if #key > block then
    key = unhex(digest(key))
  end
  key = key .. rep("\0", block - #key)
  return digest(gsub(key, ".", OUTER) .. unhex(digest(gsub(key, ".", INNER) .. text)))
end
