-- Reads a literal and writes its value as JSON.
local json = dofile("testdata/check.lua").load("json").json

local function join(...)
  local whole = {}
  for i = 1, select("#", ...) do
    for key, value in next, (select(i, ...)()) do
      whole[key] = value
    end
  end
  return whole
end

local chunk = assert(loadstring("return " .. io.read("*a"), "=literal", "t"))
io.write(assert(json.encode(setfenv(chunk, {J = join})())))
