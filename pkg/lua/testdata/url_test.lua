local check = dofile("testdata/check.lua")
local url = check.load("url").url

for _, case in ipairs({
  {"", ""}, {"a", "a"}, {"a%20b", "a b"}, {"a+b", "a+b"}, {"a+b", "a b", true}, {"a%2Bb", "a+b", true}, {"%41%7a", "Az"},
  {"%", "%"}, {"%4", "%4"}, {"%zz", "%zz"}, {"%%41", "%A"}, {"%2541", "%41"}, {"%C3%A9", "\195\169"}, {"%00", "\0"},
}) do
  check.equal(url.decode(case[1], case[3]), case[2], "decode " .. case[1])
end
check.equal(url.encode("aZ0-._~ /+%é\0"), "aZ0-._~%20%2F%2B%25%C3%A9%00", "encode")

local function spell(arguments)
  local out = {}
  for i, a in ipairs(arguments) do
    out[i] = ("%s|%s|%s"):format(a.name, tostring(a.value), a.raw)
  end
  return table.concat(out, " ")
end
check.equal(spell(url.query(nil)), "", "no query")
check.equal(spell(url.query("")), "", "empty query")
check.equal(spell(url.query("a=1&b=2")), "a|1|a=1 b|2|b=2", "two")
check.equal(spell(url.query("a&b=")), "a|true|a b||b=", "without = and empty")
check.equal(spell(url.query("a=1=2")), "a|1=2|a=1=2", "= in a value")
check.equal(spell(url.query("&&a=1&&")), "a|1|a=1", "nothing between")
check.equal(spell(url.query("=1")), "|1|=1", "no name")
check.equal(spell(url.query("a%20b=c+d%26")), "a b|c d&|a%20b=c+d%26", "decoded")
check.equal(spell(url.query("a=1&a=2", 1)), "a|1|a=1", "the first only")
check.equal(#url.query(("a&"):rep(101)), 100, "Kong's hundred")
check.equal(#url.query(("a&"):rep(101), math.huge), 101, "all")
check.finish()
