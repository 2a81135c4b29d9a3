-- Texts of addresses are those of RFC 4291 (2.2), RFC 5952 and RFC 4632.
local check = dofile("testdata/check.lua")
local ip = check.load("ip").ip

local function hex(bytes)
  return bytes and (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

for text, want in pairs({
  ["192.0.2.1"] = "c0000201", ["0.0.0.0"] = "00000000", ["255.255.255.255"] = "ffffffff",
  ["ABCD:EF01:2345:6789:ABCD:EF01:2345:6789"] = "abcdef0123456789abcdef0123456789",
  ["2001:DB8:0:0:8:800:200C:417A"] = "20010db80000000000080800200c417a",
  ["2001:DB8::8:800:200C:417A"] = "20010db80000000000080800200c417a",
  ["FF01::101"] = "ff010000000000000000000000000101",
  ["::1"] = "00000000000000000000000000000001", ["::"] = ("00"):rep(16),
  ["0:0:0:0:0:0:13.1.68.3"] = ("00"):rep(12) .. "0d014403", ["::13.1.68.3"] = ("00"):rep(12) .. "0d014403",
  ["::FFFF:129.144.52.38"] = "81903426", ["0:0:0:0:0:ffff:8190:3426"] = "81903426",
  ["2001:db8:0:0:1:0:0:1"] = "20010db8000000000001000000000001", ["2001:0db8::0001"] = "20010db8000000000000000000000001",
  ["2001:db8:1:1:1:1:1::"] = "20010db8000100010001000100010000",
}) do
  check.equal(hex(ip.parse(text)), want, text)
end
for _, text in ipairs({
  "", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "0x1.2.3.4", "1.2.3.4/8", "1.2.3.4:80", "1.2..4",
  ":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", ":1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:",
  "12345::", "g::", "fe80::1%eth0", "[::1]", "::1.2.3", "::1.2.3.4:5", "1.2.3.4::", "::1\0",
}) do
  check.equal(ip.parse(text), nil, "no address: " .. text)
end
check.equal(ip.parse(nil), nil, "nil")
check.equal(ip.parse(1.2), nil, "a number")
check.equal(ip.parse(("1"):rep(1e6)), nil, "a long text")

for _, case in ipairs({
  {{"192.0.2.0/24"}, "192.0.2.255", true}, {{"192.0.2.0/24"}, "192.0.3.0", false}, {{"192.0.2.77/24"}, "192.0.2.1", true},
  {{"10.0.0.0/9"}, "10.127.255.255", true}, {{"10.0.0.0/9"}, "10.128.0.0", false}, {{"10.1.2.3"}, "10.1.2.3", true}, {{"10.1.2.3"}, "10.1.2.4", false},
  {{"0.0.0.0/0"}, "203.0.113.9", true}, {{"0.0.0.0/0"}, "2001:db8::1", false}, {{"::/0"}, "2001:db8::1", true}, {{"::/0"}, "203.0.113.9", false},
  {{"2001:db8::/32"}, "2001:DB8:FFFF::1", true}, {{"2001:db8::/32"}, "2001:db9::", false}, {{"2001:db8::/33"}, "2001:db8:8000::", false},
  {{"2001:db8::1"}, "2001:db8:0:0::1", true}, {{"10.0.0.0/8"}, "::ffff:10.1.2.3", true}, {{"::ffff:10.0.0.0/104"}, "10.1.2.3", true},
  {{"::/0"}, "::ffff:10.1.2.3", true}, {{"::ffff:10.0.0.0/104"}, "11.1.2.3", false}, {{"10.0.0.0/31", "192.0.2.0/24"}, "192.0.2.1", true},
  {{"10.0.0.0/31", "10.0.0.9"}, "10.0.0.2", false}, {{}, "10.0.0.1", false}, {{"10.0.0.0/8"}, "10.0.0", false}, {{"10.0.0.0/8"}, nil, false},
}) do
  check.equal(ip.ranges(case[1])(case[2]), case[3], table.concat(case[1], ",") .. " and " .. tostring(case[2]))
end
for _, wrong in ipairs({"10.0.0.0/33", "::/129", "10.0.0.0/", "/8", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8/8", "a", "", "10.0.0.0/255.0.0.0", 1}) do
  local ok, problem = pcall(ip.ranges, {"10.0.0.1", wrong})
  check.equal(ok, false, "no range: " .. wrong)
  check.equal(problem:find("not an IP address or range: ", 1, true) ~= nil, true, problem)
end
check.equal(pcall(ip.ranges), false, "no list")
check.equal(pcall(ip.ranges, "10.0.0.1"), false, "a text")

-- Every length of both kinds, against bits that are written one by one.
local function binary(address)
  return (hex(ip.parse(address)):gsub("%x", function(digit)
    local n, out = tonumber(digit, 16), ""
    for i = 3, 0, -1 do out = out .. math.floor(n / 2 ^ i) % 2 end
    return out
  end))
end
for _, pair in ipairs({{"172.16.254.1", "172.16.254.3", 32}, {"172.16.254.1", "172.16.0.1", 32}, {"2001:db8:85a3::8a2e:370:7334", "2001:db8:85a3::8a2e:370:7335", 128},
  {"2001:db8:85a3::8a2e:370:7334", "3001:db8::", 128}}) do
  for bits = 0, pair[3] do
    local want = binary(pair[1]):sub(1, bits) == binary(pair[2]):sub(1, bits)
    check.equal(ip.ranges({pair[1] .. "/" .. bits})(pair[2]), want, pair[1] .. "/" .. bits .. " and " .. pair[2])
  end
end
check.finish()
