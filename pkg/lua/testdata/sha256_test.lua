-- Vectors of NIST: FIPS 180-4 examples, and SHA256ShortMsg.rsp of the Cryptographic Algorithm Validation Program.
local check = dofile("testdata/check.lua")
local sha256 = check.load("sha256").sha256

local function bytes(hex)
  return (hex:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

local VECTORS = {
  {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
  {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
  {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
  {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
    "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
  {bytes("d3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"},
  {bytes("11af"), "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98"},
  {bytes("b4190e"), "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2"},
  {("a"):rep(1000000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
}
for i, v in ipairs(VECTORS) do
  check.equal(sha256(v[1]), v[2], "vector " .. i)
end

-- Every length around the end of a block, against a chain of digests computed with another implementation.
local chain = ""
for length = 0, 130 do
  chain = sha256(chain .. ("x"):rep(length))
end
check.equal(chain, "aa78c164dabd63d46f7221d2f3cb37042d72f34c07a7b21f1df436f858ea0e6b", "lengths 0 to 130")
check.finish()
