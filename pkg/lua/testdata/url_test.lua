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

-- URLs are those of RFC 3986 (1.1.2, 3, 5.4 and appendix B).
local function taken_apart(text)
  local u = url.parse(text)
  if not u then
    return nil
  end
  local out = {}
  for i, part in ipairs({"scheme", "userinfo", "host", "port", "path", "query", "fragment"}) do
    out[i] = tostring(u[part])
  end
  return table.concat(out, " ")
end
for text, want in pairs({
  ["ftp://ftp.is.co.za/rfc/rfc1808.txt"] = "ftp nil ftp.is.co.za nil /rfc/rfc1808.txt nil nil",
  ["http://www.ietf.org/rfc/rfc2396.txt"] = "http nil www.ietf.org nil /rfc/rfc2396.txt nil nil",
  ["ldap://[2001:db8::7]/c=GB?objectClass?one"] = "ldap nil 2001:db8::7 nil /c=GB objectClass?one nil",
  ["mailto:John.Doe@example.com"] = "mailto nil nil nil John.Doe@example.com nil nil",
  ["tel:+1-816-555-1212"] = "tel nil nil nil +1-816-555-1212 nil nil",
  ["telnet://192.0.2.16:80/"] = "telnet nil 192.0.2.16 80 / nil nil",
  ["urn:oasis:names:specification:docbook:dtd:xml:4.1.2"] = "urn nil nil nil oasis:names:specification:docbook:dtd:xml:4.1.2 nil nil",
  ["foo://example.com:8042/over/there?name=ferret#nose"] = "foo nil example.com 8042 /over/there name=ferret nose",
  ["http://www.ics.uci.edu/pub/ietf/uri/#Related"] = "http nil www.ics.uci.edu nil /pub/ietf/uri/ nil Related",
  ["//g"] = "nil nil g nil  nil nil", ["g?y/./x"] = "nil nil nil nil g y/./x nil", ["?y"] = "nil nil nil nil  y nil", ["#s"] = "nil nil nil nil  nil s",
  [""] = "nil nil nil nil  nil nil", ["/a:b"] = "nil nil nil nil /a:b nil nil", ["HTTPS://User:Pw@EXAMPLE.com:/?#"] = "https User:Pw example.com nil /  ",
  ["http://a@b@evil.test/"] = "http a@b evil.test nil / nil nil", ["http://a?@b"] = "http nil a nil  @b nil", ["http:///path"] = "http nil  nil /path nil nil",
}) do
  check.equal(taken_apart(text), want, "parse " .. text)
end
for _, wrong in ipairs({"http://a b", "http://a\\b", "http://a/\r\n", "http://\195\169.test", "http://a:b", "http://a:65536", "http://a:-1", "http://[::1", "http://::1]/",
  "http://[::1]a", "http://[v1.a]", "/<", "http://a:1:2"}) do
  check.equal(url.parse(wrong), nil, "no URL: " .. wrong)
end
check.equal(url.parse(nil), nil, "nil is no URL")
-- It would not end within a day if the end of a userinfo were looked for from each of its bytes.
check.equal(url.parse("//" .. ("a"):rep(2 ^ 23) .. "@b").host, "b", "a long userinfo")
check.equal(url.parse("//" .. ("a@"):rep(2 ^ 22) .. "b").host, "b", "many userinfos")
check.finish()
