-- Vectors of RFC 4648 §10, and what is no base64.
local check = dofile("testdata/check.lua")
local base64 = check.load("base64").base64

for plain, coded in pairs({
  [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy",
  ["\251\255\254"] = "+//+", ["\0\0\0"] = "AAAA",
}) do
  local url = coded:gsub("=", ""):gsub("+", "-"):gsub("/", "_")
  check.equal(base64.encode(plain), coded, "encode")
  check.equal(base64.encode_url(plain), url, "encode_url")
  check.equal(base64.decode(coded), plain, "decode " .. coded)
  check.equal(base64.decode((coded:gsub("=", ""))), plain, "decode without padding " .. coded)
  check.equal(base64.decode_url(url), plain, "decode_url " .. url)
end

local all = {}
for i = 0, 255 do
  all[i + 1] = string.char(i)
end
all = table.concat(all)
for i = 1, #all do
  check.equal(base64.decode(base64.encode(all:sub(i))), all:sub(i), "round trip " .. i)
  check.equal(base64.decode_url(base64.encode_url(all:sub(1, i))), all:sub(1, i), "round trip url " .. i)
end

for _, bad in ipairs({
  "Z", "Zg=", "Zg===", "Z===", "====", "=", "Zg==Zg==", "Zm9v=", "Z=g=", "Zm 9v", "Zm9v\n", " Zm9v", "Zm9%", "Zm9v\0",
  "Zh==", "Zm9=", "-_-_", "Zm9vY", "Zg==\n", "Zg==x",
}) do
  check.equal(base64.decode(bad), nil, string.format("decode %q", bad))
end
check.equal(base64.decode_url("+//+"), nil, "the standard alphabet in decode_url")
check.finish()
