-- equal and uuid.
local check = dofile("testdata/check.lua")
local modules = check.load("equal", "uuid")
local equal, uuid = modules.equal, modules.uuid

check.equal(equal("", ""), true, "empty")
check.equal(equal("secret", "secret"), true, "same")
check.equal(equal("secret", "secreT"), false, "last byte")
check.equal(equal("Secret", "secret"), false, "first byte")
check.equal(equal("secret", "secre"), false, "shorter")
check.equal(equal("a\0b", "a\0c"), false, "behind NUL")
check.equal(equal("a", nil), false, "nil")
check.equal(equal(1, 1), false, "numbers are no secrets")

-- What it costs must not depend on where secrets differ: instructions, which, unlike time, are the same on every run.
local function cost(a, b)
  local instructions = 0
  debug.sethook(function() instructions = instructions + 1 end, "", 1)
  equal(a, b)
  debug.sethook()
  return instructions
end
jit.off()
local secret = ("s"):rep(64)
local last = cost(secret, secret:sub(1, 63) .. "x")
check.equal(last > 64, true, "every byte is looked at")
for at = 1, 64 do
  check.equal(cost(secret, secret:sub(1, at - 1) .. "x" .. secret:sub(at + 1)), last, "different at " .. at)
end
check.equal(cost(secret, ("x"):rep(64)), last, "different everywhere")
jit.on()

local seen = {}
for _ = 1, 10000 do
  local id = uuid()
  if not id:match("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") then
    check.equal(id, "a version 4 UUID", "form")
  end
  check.equal(seen[id], nil, "seen before")
  seen[id] = true
end
-- Another VM must not make the same ones.
local other = io.popen("luajit -e 'print(dofile(\"runtime/uuid.lua\")())'"):read("*l")
check.equal(#other, 36, "of another VM")
check.equal(seen[other], nil, "seen in this VM")
check.finish()
