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
