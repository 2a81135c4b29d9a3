-- How the digests of FIPS 180-4 fill up the last block of a message: a bit, zeros, and the length in bits.

local char, floor, rep = string.char, math.floor, string.rep

-- padding makes the function for a size of blocks and of the length, in bytes. A Lua number holds lengths below 2^53.
return function(block, length)
  return function(text)
    local bits = #text * 8
    local high, low = floor(bits / 0x100000000), bits % 0x100000000
    return text .. "\128" .. rep("\0", (-#text - 1 - length) % block + length - 8) .. char(
      floor(high / 0x1000000), floor(high / 0x10000) % 256, floor(high / 0x100) % 256, high % 256,
      floor(low / 0x1000000), floor(low / 0x10000) % 256, floor(low / 0x100) % 256, low % 256)
  end
end
