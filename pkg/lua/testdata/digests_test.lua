-- Vectors of NIST: FIPS 180-4 examples, and the ShortMsg.rsp files of the Cryptographic Algorithm Validation Program.
local check = dofile("testdata/check.lua")
local modules = check.load("hex", "padding", "sha1", "sha256", "sha512")
local bytes = modules.hex.decode

local DIGESTS = {
  sha1 = modules.sha1, sha256 = modules.sha256, sha384 = modules.sha512.sha384, sha512 = modules.sha512.sha512,
}

local TWO_BLOCKS = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
local TWO_LONG_BLOCKS = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
  .. "nopqrstu"

local VECTORS = {
  sha1 = {
    {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
    {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {TWO_BLOCKS, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    {TWO_LONG_BLOCKS, "a49b2446a02c645bf419f995b67091253a04a259"},
    {bytes("36"), "c1dfd96eea8cc2b62785275bca38ac261256e278"},
    {bytes("195a"), "0a1c2d555bbe431ad6288af5a54f93e0449c9232"},
    {bytes("df4bd2"), "bf36ed5d74727dfd5d7854ec6b1d49468d8ee8aa"},
    {("a"):rep(1000000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"},
  },
  sha256 = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {TWO_BLOCKS, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {TWO_LONG_BLOCKS, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    {bytes("d3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"},
    {bytes("11af"), "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98"},
    {bytes("b4190e"), "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2"},
    {("a"):rep(1000000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  },
  sha384 = {
    {"", "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"},
    {"abc", "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},
    {TWO_BLOCKS, "3391fdddfc8dc7393707a65b1b4709397cf8b1d162af05abfe8f450de5f36bc6b0455a8520bc4e6f5fe95b1fe3c8452b"},
    {TWO_LONG_BLOCKS, "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039"},
    {bytes("c5"), "b52b72da75d0666379e20f9b4a79c33a329a01f06a2fb7865c9062a28c1de860ba432edfd86b4cb1cb8a75b46076e3b1"},
    {bytes("6ece"), "53d4773da50d8be4145d8f3a7098ff3691a554a29ae6f652cc7121eb8bc96fd2210e06ae2fa2a36c4b3b3497341e70f0"},
    {bytes("1fa4d5"), "e4ca4663dff189541cd026dcc056626419028774666f5b379b99f4887c7237bdbd3bea46d5388be0efc2d4b7989ab2c4"},
    {("a"):rep(1000000), "9d0e1809716474cb086e834e310a4a1ced149e9c00f248527972cec5704c2a5b07b8b3dc38ecc4ebae97ddd87f3d8985"},
  },
  sha512 = {
    {"", "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
      .. "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"},
    {"abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
    {TWO_BLOCKS, "204a8fc6dda82f0a0ced7beb8e08a41657c16ef468b228a8279be331a703c335"
      .. "96fd15c13b1b07f9aa1d3bea57789ca031ad85c7a71dd70354ec631238ca3445"},
    {TWO_LONG_BLOCKS, "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
      .. "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"},
    {bytes("21"), "3831a6a6155e509dee59a7f451eb35324d8f8f2df6e3708894740f98fdee2388"
      .. "9f4de5adb0c5010dfb555cda77c8ab5dc902094c52de3278f35a75ebc25f093a"},
    {bytes("9083"), "55586ebba48768aeb323655ab6f4298fc9f670964fc2e5f2731e34dfa4b0c09e"
      .. "6e1e12e3d7286b3145c61c2047fb1a2a1297f36da64160b31fa4c8c2cddd2fb4"},
    {bytes("0a55db"), "7952585e5330cb247d72bae696fc8a6b0f7d0804577e347d99bc1b11e52f3849"
      .. "85a428449382306a89261ae143c2f3fb613804ab20b42dc097e5bf4a96ef919b"},
    {("a"):rep(1000000), "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
      .. "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"},
  },
}

-- Every length around the ends of blocks, as a chain of digests that was computed with another implementation.
local CHAINS = {
  sha1 = "1703b2fbd50349727f3be490543bcaffee01edb3",
  sha256 = "ea105d78d0031924b2edbbfd4bc37dd018783c16b46a091c5afbcbb1b12cb49a",
  sha384 = "f0a7c51ce0c4c0087c6636be3541f2df5bccfb58c32b3b8b91ce3dc0504c76b51cd6bfcadc7be81f9df0340105dbf1f7",
  sha512 = "5cbf39e3bd2596465e77730753d672f50b66ce3f255ede91b01ae4ea4ca8a813"
    .. "7f35faf178cd7a2172f8f23648239dea1268bfe9c7cc0499c220ad9262a4dbb9",
}

for name, digest in pairs(DIGESTS) do
  for i, v in ipairs(VECTORS[name]) do
    check.equal(digest(v[1]), v[2], name .. ", vector " .. i)
  end
  local chain = ""
  for length = 0, 260 do
    chain = digest(chain .. ("x"):rep(length))
  end
  check.equal(chain, CHAINS[name], name .. ", lengths 0 to 260")
end
check.finish()
