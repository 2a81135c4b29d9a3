-- Vectors of RFC 4648 §10, and what is no hex.
local check = dofile("testdata/check.lua")
local hex = check.load("hex").hex

for plain, coded in pairs({
  [""] = "", f = "66", fo = "666f", foo = "666f6f", foob = "666f6f62", fooba = "666f6f6261", foobar = "666f6f626172",
  ["\0\255\n"] = "00ff0a",
}) do
  check.equal(hex.encode(plain), coded, "encode")
  check.equal(hex.decode(coded), plain, "decode " .. coded)
  check.equal(hex.decode(coded:upper()), plain, "decode " .. coded:upper())
end
check.equal(hex.decode("aBAb"), "\171\171", "both cases in one byte")
for _, bad in ipairs({"0", "000", "0g", "0x00", " 00", "00\n", "0\0", "--"}) do
  check.equal(hex.decode(bad), nil, string.format("decode %q", bad))
end
check.finish()
