local check = dofile("testdata/check.lua")
local now = 1000
local time = os.time
os.time = function() return now end
local cache = check.load("cache").cache
os.time = time

local c = cache(10)
check.equal(c:get("a"), nil, "nothing yet")
c:set("a", 1)
c:set("b", false)
check.equal(c:get("a"), 1, "kept")
check.equal(c:get("b"), false, "false is a value")
c:set("a", 2)
check.equal(c:get("a"), 2, "replaced")
c:set("a", nil)
check.equal(c:get("a"), nil, "forgotten")
c:set("unknown", nil)

-- Values end.
c:set("a", 1, 10)
now = 1009
check.equal(c:get("a"), 1, "before its end")
now = 1010
check.equal(c:get("a"), nil, "at its end")
c:set("a", 1, 0)
check.equal(c:get("a"), nil, "for no time")

-- There are never more than there may be, and what is used stays.
for most = 10, 19 do
  c = cache(most)
  c:set("used", true)
  for i = 1, 100 do
    c:set(i, i)
    check.equal(c:get("used"), true, "in use, " .. most)
    check.equal(c:get(i), i, "the last one, " .. most)
  end
  local kept = 0
  for i = 1, 100 do
    c:set("used", true)
    kept = kept + (c:get(i) and 1 or 0)
  end
  check.equal(kept > 0 and kept < most, true, kept .. " and one in use, of at most " .. most)
end

for _, wrong in ipairs({0, 9, 10.5, 100001, "4", -2, true, 0 / 0}) do
  check.equal(pcall(cache, wrong), false, "a cache of " .. tostring(wrong))
end
check.equal(pcall(c.set, c, "a", 1, "10"), false, "a text of seconds")
check.equal(pcall(c.set, c, nil, 1), false, "no key")
check.equal(cache():get("a"), nil, "the usual size")
check.finish()
