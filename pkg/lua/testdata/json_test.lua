-- The cases are after RFC 8259 and the kinds of Nicolas Seriot's JSONTestSuite (accepted, refused).
local check = dofile("testdata/check.lua")
local json = check.load("json").json

-- What is read and written again is the same text, or the one beside it.
for _, case in ipairs({
  {"{}"}, {"[]"}, {"null"}, {"true"}, {"false"}, {'""'}, {"0"}, {"-1"}, {'"a"'},
  {'{"a":{},"b":[]}'}, {"[[],{},[[]]]"}, {'[null,{"a":null}]'},
  {"[9007199254740993]"}, {"[12345678901234567890123]"}, {"[1.0]"}, {"[1.50]"}, {"[1e2]"}, {"[1E+2]"}, {"[-0]"}, {"[-0.0]"}, {"[1e400]"},
  {"0.1"}, {"1.0", "1"},
  {'{"n":1.0,"m":[1.10,2,3e0]}'}, {"[0.30000000000000004]"}, {"123456789012345"}, {"1234567890123456"},
  {'{"z":1,"a":2,"m":3}'}, {' [ 1 ,\t2\r\n] ', "[1,2]"}, {'{"a" : 1 , "b":2}', '{"a":1,"b":2}'},
  {'"\\u0041\\u00e9\\u20AC"', '"A\195\169\226\130\172"'}, {'"\\ud83d\\ude00"', '"\240\159\152\128"'}, {'"\\uD834\\uDD1E"', '"\240\157\132\158"'},
  {'"\\/"', '"/"'}, {'"\\b\\f\\n\\r\\t\\"\\\\"'}, {'"\\u0000\\u001f"'}, {'"\127"'}, {'"\195\169"'},
  {'{"a":1,"a":2}', '{"a":2}'}, {'{"a":1.0,"a":2}', '{"a":2}'}, {'{"":0}'}, {'{"a":false,"a":true}', '{"a":true}'},
  {("["):rep(64) .. ("]"):rep(64)}, {'{"a":' .. ("["):rep(63) .. ("]"):rep(63) .. "}"},
}) do
  local value, problem = json.decode(case[1])
  check.equal(problem, nil, "decode " .. case[1])
  check.equal(json.encode(value), case[2] or case[1], "round trip of " .. case[1])
end

for _, bad in ipairs({
  "", " ", "nul", "True", "NaN", "Infinity", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10", "1 2", "[1,]", "[,1]", "[1", "]",
  "{", "{a:1}", "{'a':1}", '{"a"}', '{"a":}', '{"a":1,}', '{,}', '{"a":1 "b":2}', '{1:2}', "[1 2]", "'a'", '"', '"a', '"\\"', '"\\x41"',
  '"\\u12"', '"\\u12g4"', '"\t"', '"\n"', '"\0"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"', '"\\ud800x"', '"\\', "[]]", "{}}", "nullx",
  "\239\187\191{}", '"\255"', '"\192\128"', '"\237\160\128"', '"\244\144\128\128"', '"\195"', '"\226\130"', '"\195\\n"', "// a\n1", "[1]x",
  '{"a":1}{', "--1", "1.2.3", "\1", "[\11]", ("["):rep(65) .. ("]"):rep(65), ("["):rep(100000), ('{"a":'):rep(65) .. "1" .. ("}"):rep(65),
}) do
  local value, problem = json.decode(bad)
  check.equal(value, nil, "refuse " .. bad:sub(1, 40))
  check.equal(type(problem), "string", "say why of " .. bad:sub(1, 40))
end
check.equal(select(2, json.decode("[1,2")), "neither , nor ] after an item at byte 5", "where it is wrong")
check.equal(select(2, json.decode(nil)), "a string is needed, not nil", "nil")

-- Values.
local v = json.decode('{"a":[1,2.5,"x",true,null],"big":9007199254740993,"e":{}}')
check.equal(v.a[1] + v.a[2], 3.5, "numbers are numbers")
check.equal(v.a[5], json.null, "null")
check.equal(tostring(json.null), "null", "null as text")
check.equal(#v.a, 5, "length with null")
check.equal(v.big > 9e15, true, "a big number compares")

-- Changes.
v.a[2], v.a[5], v.new, v.another = 2, nil, "n", 1
v.big = 7
check.equal(json.encode(v), '{"a":[1,2,"x",true],"big":7,"e":{},"another":1,"new":"n"}', "changed")
v.a, v.e = nil, nil
check.equal(json.encode(v), '{"big":7,"another":1,"new":"n"}', "removed")
check.equal(json.encode(json.array({})), "[]", "an empty list")
check.equal(json.encode({}), "{}", "an empty map")
check.equal(json.encode({1, {b = 2, a = 1}}), '[1,{"a":1,"b":2}]', "made of plain tables")
check.equal(json.encode({x = json.null, y = json.array({json.null})}), '{"x":null,"y":[null]}', "null and lists made")
check.equal(json.encode("a\255b\195\169"), '"a\239\191\189b\195\169"', "what is no UTF-8")
check.equal(json.encode(0.1), "0.1", "shortest text")
check.equal(json.encode(1 / 3), "0.33333333333333331", "all digits")
check.equal(json.encode(2 ^ 53), "9007199254740992", "2^53")
check.equal(json.encode(1e15), "1e+15", "1e15")
check.equal(json.encode(-5), "-5", "negative")

local cycle = {}
cycle[1] = cycle
for what, bad in pairs({
  ["nan"] = 0 / 0, ["infinite"] = 1 / 0, ["a function"] = print, ["a hole"] = {1, nil, 3}, ["mixed"] = {1, a = 2},
  ["a number as key"] = {[5] = 1}, ["a cycle"] = cycle, ["a list with keys"] = json.array({a = 1}), ["true as key"] = {[true] = 1},
}) do
  local text, problem = json.encode(bad)
  check.equal(text, nil, "encode " .. what)
  check.equal(type(problem), "string", "say why of " .. what)
end

-- The text of one member.
local document = json.decode('{"n":1.0,"big":12345678901234567890,"s":"a\\u0041","o":{"x":1e2},"t":true,"z":null,"m":7}')
for key, want in pairs({n = "1.0", big = "12345678901234567890", s = '"aA"', o = '{"x":1e2}', t = "true", z = "null", m = "7"}) do
  check.equal(json.text(document, key), want, "text of " .. key)
end
check.equal(json.text(json.decode("[1.50]"), 1), "1.50", "text of an item")
check.equal(json.text({a = 2}, "a"), "2", "text in a plain table")
check.equal(json.text(document, "none"), nil, "text of what is not there")
document.n = 2
check.equal(json.text(document, "n"), "2", "text of a changed number")

-- The marks of one table do not show, and cannot be changed for others.
check.equal(getmetatable(json.decode("[]")), false, "metatable")
check.equal(pcall(setmetatable, json.decode("[]"), {}), false, "setmetatable")
check.equal(getmetatable(json.null), false, "metatable of null")
local class = setmetatable({a = 1}, {keys = 1, list = true, text = 5, __index = function() error("called") end})
check.equal(json.encode(class), '{"a":1}', "a plugin's metatable is not taken for ours")
check.finish()
