-- Version 4 UUIDs (RFC 9562). They are unique, not secret.

local format, random = string.format, math.random

-- LuaJIT's random numbers begin the same in every VM, and each worker of each gateway has one: without a seed they would
-- all make the same UUIDs.
local function seed()
  local device = io.open("/dev/urandom", "rb")
  local bytes = device and device:read(6)
  if device then
    device:close()
  end
  if not bytes then
    return os.time() * 1000 + os.clock() * 1000 + tonumber(tostring({}):match("0x(%x+)") or "0", 16)
  end
  local number = 0
  for i = 1, #bytes do
    number = number * 256 + bytes:byte(i)
  end
  return number
end

math.randomseed(seed())

return function()
  return format("%08x-%04x-4%03x-%04x-%04x%08x",
    random(0, 0xffffffff), random(0, 0xffff), random(0, 0xfff), random(0x8000, 0xbfff),
    random(0, 0xffff), random(0, 0xffffffff))
end
