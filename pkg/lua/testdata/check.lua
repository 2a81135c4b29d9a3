-- What the tests of the pure modules share. Modules are loaded as the generated filter loads them.

local check = {failed = 0, count = 0}

function check.load(...)
  local modules = {}
  for _, name in ipairs({...}) do
    modules[name] = assert(loadfile("runtime/" .. name .. ".lua"))(modules)
  end
  return modules
end

local function show(value)
  return type(value) == "string" and string.format("%q", value) or tostring(value)
end

function check.equal(got, want, what)
  check.count = check.count + 1
  if got ~= want then
    check.failed = check.failed + 1
    print(string.format("%s: got %s, want %s", what, show(got), show(want)))
  end
end

function check.finish()
  if check.count == 0 then
    print("no checks")
    os.exit(1)
  end
  os.exit(check.failed == 0 and 0 or 1)
end

return check
