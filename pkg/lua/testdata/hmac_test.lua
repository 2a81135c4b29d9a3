-- Vectors of RFC 2202 (SHA-1) and RFC 4231 (the others; of its case 5 not only the first 128 bits).
local check = dofile("testdata/check.lua")
local modules = check.load("hex", "padding", "sha1", "sha256", "sha512", "report", "hmac")
local bytes, hmac = modules.hex.decode, modules.hmac

local CASES = {
  {
    key = ("\011"):rep(20),
    text = "Hi There",
    sha1 = "b617318655057264e28bc0b6fb378c8ef146be00",
  },
  {
    key = "Jefe",
    text = "what do ya want for nothing?",
    sha1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
  },
  {
    key = ("\170"):rep(20),
    text = ("\221"):rep(50),
    sha1 = "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
  },
  {
    key = bytes("0102030405060708090a0b0c0d0e0f10111213141516171819"),
    text = ("\205"):rep(50),
    sha1 = "4c9007f4026250c6bc8414f9bf50c86c2d7235da",
  },
  {
    key = ("\012"):rep(20),
    text = "Test With Truncation",
    sha1 = "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04",
  },
  {
    key = ("\170"):rep(80),
    text = "Test Using Larger Than Block-Size Key - Hash Key First",
    sha1 = "aa4ae5e15272d00e95705637ce8a3b55ed402112",
  },
  {
    key = ("\170"):rep(80),
    text = "Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
    sha1 = "e8e99d0f45237d786d6bbaa7965c7808bbff1a91",
  },
  {
    key = ("\011"):rep(20),
    text = "Hi There",
    sha256 = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    sha384 = "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
    sha512 = "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
      .. "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
  },
  {
    key = "Jefe",
    text = "what do ya want for nothing?",
    sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    sha384 = "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    sha512 = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
      .. "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
  },
  {
    key = ("\170"):rep(20),
    text = ("\221"):rep(50),
    sha256 = "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    sha384 = "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
    sha512 = "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39"
      .. "bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
  },
  {
    key = bytes("0102030405060708090a0b0c0d0e0f10111213141516171819"),
    text = ("\205"):rep(50),
    sha256 = "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    sha384 = "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
    sha512 = "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db"
      .. "a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
  },
  {
    key = ("\012"):rep(20),
    text = "Test With Truncation",
    sha256 = "a3b6167473100ee06e0c796c2955552bfa6f7c0a6a8aef8b93f860aab0cd20c5",
    sha384 = "3abf34c3503b2a23a46efc619baef897f4c8e42c934ce55ccbae9740fcbc1af4ca62269e2a37cd88ba926341efe4aeea",
    sha512 = "415fad6271580a531d4179bc891d87a650188707922a4fbb36663a1eb16da008"
      .. "711c5b50ddd0fc235084eb9d3364a1454fb2ef67cd1d29fe6773068ea266e96b",
  },
  {
    key = ("\170"):rep(131),
    text = "Test Using Larger Than Block-Size Key - Hash Key First",
    sha256 = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    sha384 = "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
    sha512 = "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
      .. "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
  },
  {
    key = ("\170"):rep(131),
    text = "This is a test using a larger than block-size key and a larger than block-size data."
      .. " The key needs to be hashed before being used by the HMAC algorithm.",
    sha256 = "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    sha384 = "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
    sha512 = "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944"
      .. "b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
  },
}
for i, case in ipairs(CASES) do
  for _, algorithm in ipairs({"sha1", "sha256", "sha384", "sha512"}) do
    if case[algorithm] then
      check.equal(hmac(algorithm, case.key, case.text), case[algorithm], algorithm .. ", case " .. i)
    end
  end
end

-- A key is what it is up to the length of a block, and its digest above; computed with another implementation.
for _, case in ipairs({
  {"sha256", 63, "c90d83e78c64ee16fe2eefa3e8a834d79d1d3d0ea483f8d9908323b714c7f134"},
  {"sha256", 64, "0414bb1d8c0c4556cdb2028727b16610ae377b1a194b6db1f853d4297f2329bc"},
  {"sha256", 65, "5b69580123e3d7e788b7e8352ac37a3247b911c5ec0837147b74109a6382d3f5"},
  {"sha512", 127, "1986e20c72fa26d28c70970d7e6f67ba4f5ac90f0dec1475d331f1f815e319fa"
    .. "a1e4d18f97ad5b51dd31fc9eec116588104f17acb77f3b4320e453558b4657eb"},
  {"sha512", 128, "4e088c5e1001741d629227fb0aef3212a543e95e688ffad7e8c1e38282be79fa"
    .. "dc38db3b2fdc460e5a8d0cb296aedacac6609c6714766e33747979bee4d3834d"},
  {"sha512", 129, "a79102c7e5421fd5b613def755101385663e14dd5aca0142b8df5be02cc9fae7"
    .. "12556cf1e5fdbab90e4ef0cbfad5c0e1c2acded29bb8958183b8308d9110cbed"},
  {"sha1", 0, "f3f276f5001644013dbd202f1854bd61f9123d0f"},
}) do
  check.equal(hmac(case[1], ("k"):rep(case[2]), "text"), case[3], case[1] .. " with a key of " .. case[2] .. " bytes")
end

local ok, problem = pcall(hmac, "md5", "key", "text")
check.equal(ok, false, "an unknown algorithm")
check.equal(problem:match("no algorithm of hmac: md5") ~= nil, true, tostring(problem))
check.finish()
