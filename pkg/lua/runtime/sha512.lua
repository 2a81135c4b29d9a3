-- SHA-384 and SHA-512 (FIPS 180-4), by the 64-bit integers of LuaJIT.

local modules = ...
local padded = modules.padding(128, 16)

local bit, ffi = require("bit"), require("ffi")
local band, bnot, bxor, ror, rshift = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift
local byte, concat, sub, tohex = string.byte, table.concat, string.sub, bit.tohex

local K = ffi.new("const uint64_t[80]", {
  0x428a2f98d728ae22ULL, 0x7137449123ef65cdULL, 0xb5c0fbcfec4d3b2fULL, 0xe9b5dba58189dbbcULL,
  0x3956c25bf348b538ULL, 0x59f111f1b605d019ULL, 0x923f82a4af194f9bULL, 0xab1c5ed5da6d8118ULL,
  0xd807aa98a3030242ULL, 0x12835b0145706fbeULL, 0x243185be4ee4b28cULL, 0x550c7dc3d5ffb4e2ULL,
  0x72be5d74f27b896fULL, 0x80deb1fe3b1696b1ULL, 0x9bdc06a725c71235ULL, 0xc19bf174cf692694ULL,
  0xe49b69c19ef14ad2ULL, 0xefbe4786384f25e3ULL, 0x0fc19dc68b8cd5b5ULL, 0x240ca1cc77ac9c65ULL,
  0x2de92c6f592b0275ULL, 0x4a7484aa6ea6e483ULL, 0x5cb0a9dcbd41fbd4ULL, 0x76f988da831153b5ULL,
  0x983e5152ee66dfabULL, 0xa831c66d2db43210ULL, 0xb00327c898fb213fULL, 0xbf597fc7beef0ee4ULL,
  0xc6e00bf33da88fc2ULL, 0xd5a79147930aa725ULL, 0x06ca6351e003826fULL, 0x142929670a0e6e70ULL,
  0x27b70a8546d22ffcULL, 0x2e1b21385c26c926ULL, 0x4d2c6dfc5ac42aedULL, 0x53380d139d95b3dfULL,
  0x650a73548baf63deULL, 0x766a0abb3c77b2a8ULL, 0x81c2c92e47edaee6ULL, 0x92722c851482353bULL,
  0xa2bfe8a14cf10364ULL, 0xa81a664bbc423001ULL, 0xc24b8b70d0f89791ULL, 0xc76c51a30654be30ULL,
  0xd192e819d6ef5218ULL, 0xd69906245565a910ULL, 0xf40e35855771202aULL, 0x106aa07032bbd1b8ULL,
  0x19a4c116b8d2d0c8ULL, 0x1e376c085141ab53ULL, 0x2748774cdf8eeb99ULL, 0x34b0bcb5e19b48a8ULL,
  0x391c0cb3c5c95a63ULL, 0x4ed8aa4ae3418acbULL, 0x5b9cca4f7763e373ULL, 0x682e6ff3d6b2b8a3ULL,
  0x748f82ee5defb2fcULL, 0x78a5636f43172f60ULL, 0x84c87814a1f0ab72ULL, 0x8cc702081a6439ecULL,
  0x90befffa23631e28ULL, 0xa4506cebde82bde9ULL, 0xbef9a3f7b2c67915ULL, 0xc67178f2e372532bULL,
  0xca273eceea26619cULL, 0xd186b8c721c0c207ULL, 0xeada7dd6cde0eb1eULL, 0xf57d4f7fee6ed178ULL,
  0x06f067aa72176fbaULL, 0x0a637dc5a2c898a6ULL, 0x113f9804bef90daeULL, 0x1b710b35131c471bULL,
  0x28db77f523047d84ULL, 0x32caab7b40c72493ULL, 0x3c9ebe0a15c9bebcULL, 0x431d67c49c100d4cULL,
  0x4cc5d4becb3e42b6ULL, 0x597f299cfc657e2aULL, 0x5fcb6fab3ad6faecULL, 0x6c44198c4a475817ULL,
})

local SHA512 = {
  0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
  0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
}

local SHA384 = {
  0xcbbb9d5dc1059ed8ULL, 0x629a292a367cd507ULL, 0x9159015a3070dd17ULL, 0x152fecd8f70e5939ULL,
  0x67332667ffc00b31ULL, 0x8eb44a8768581511ULL, 0xdb0c2e0d64f98fa7ULL, 0x47b5481dbefa4fa4ULL,
}

-- The message schedule. One array for all calls: no call yields, so none sees another's.
local W = ffi.new("uint64_t[80]")

local function schedule(text, at)
  for i = 0, 15 do
    local a, b, c, d, e, f, g, h = byte(text, at, at + 7)
    local high, low = ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
    W[i] = high * 0x100000000ULL + low
    at = at + 8
  end
  for i = 16, 79 do
    local x, y = W[i - 15], W[i - 2]
    local s0 = bxor(ror(x, 1), ror(x, 8), rshift(x, 7))
    local s1 = bxor(ror(y, 19), ror(y, 61), rshift(y, 6))
    W[i] = W[i - 16] + s0 + W[i - 7] + s1
  end
end

-- The working variables a to h. They are in an array, since LuaJIT makes an object of every 64-bit integer that a local
-- carries from one round to the next. Instead of moving all of them each round, round i finds a at -i modulo 8.
local V = ffi.new("uint64_t[8]")

local function rounds()
  for i = 0, 79 do
    local a, b, c = V[band(-i, 7)], V[band(1 - i, 7)], V[band(2 - i, 7)]
    local e, f, g = V[band(4 - i, 7)], V[band(5 - i, 7)], V[band(6 - i, 7)]
    local d, h = band(3 - i, 7), band(7 - i, 7)
    local s1 = bxor(ror(e, 14), ror(e, 18), ror(e, 41))
    local t1 = V[h] + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i] + W[i]
    local s0 = bxor(ror(a, 28), ror(a, 34), ror(a, 39))
    V[d] = V[d] + t1
    V[h] = t1 + s0 + bxor(band(a, b), band(a, c), band(b, c))
  end
end

-- digest makes a function of a message, for initial values and a length of the result in hex digits.
local function digest(initial, length)
  return function(text)
    local message = padded(text)
    local H = ffi.new("uint64_t[8]", initial)
    for at = 1, #message, 128 do
      schedule(message, at)
      for i = 0, 7 do
        V[i] = H[i]
      end
      rounds()
      for i = 0, 7 do
        H[i] = H[i] + V[i]
      end
    end
    local hex = {}
    for i = 0, 7 do
      hex[i + 1] = tohex(H[i])
    end
    return sub(concat(hex), 1, length)
  end
end

return {sha384 = digest(SHA384, 96), sha512 = digest(SHA512, 128)}
