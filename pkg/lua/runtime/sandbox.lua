-- The globals of a plugin.
--
-- Every entry of a chain has its own, with its own copies of the libraries, made when they are first used: what one
-- plugin does to them no other sees. They hold functions that cannot load code, leave the VM, or reach another function's
-- or object's insides.

local modules = ...
local call, report, stream = modules.call, modules.report, modules.stream
local harmless = {
  _VERSION = _VERSION, assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = pcall,
  print = print, rawequal = rawequal, rawget = rawget, rawset = rawset, select = select, setmetatable = setmetatable,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
}

local real_getmetatable = getmetatable
local create, resume, running = coroutine.create, coroutine.resume, coroutine.running
local status, yield = coroutine.status, coroutine.yield

-- The metatable of strings holds the string library that everybody's methods come from, and Envoy's objects share theirs.
function harmless.getmetatable(value)
  if type(value) ~= "table" then
    return nil
  end
  return real_getmetatable(value)
end

local function copy(library)
  local out = {}
  for name, value in next, library do
    out[name] = type(value) == "table" and copy(value) or value
  end
  return out
end

local function without(library, name)
  local out = copy(library)
  out[name] = nil
  return out
end

-- Coroutines.
--
-- Envoy's calls that wait (body, httpCall, respond) yield the coroutine that they are called in and resume the one that
-- the filter started. So a yield that is not the plugin's own is passed on outwards, and the answer inwards. Only a
-- plugin's coroutines may be resumed, never one of Envoy's, which another stream may be waiting for.

local OWN_YIELD = {}
local ours = setmetatable({}, {__mode = "k"})
local coroutines = {status = status}

local function passed(co, ok, first, ...)
  if not ok or status(co) == "dead" then
    return ok, first, ...
  elseif first == OWN_YIELD then
    return true, ...
  end
  return passed(co, resume(co, yield(first, ...)))
end

function coroutines.create(f)
  local co = create(f)
  ours[co] = true
  return co
end

function coroutines.resume(co, ...)
  if type(co) == "thread" and not ours[co] then
    return false, "not a coroutine of this plugin"
  end
  return passed(co, resume(co, ...))
end

local function unwrapped(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

function coroutines.wrap(f)
  local co = coroutines.create(f)
  return function(...)
    return unwrapped(passed(co, resume(co, ...)))
  end
end

function coroutines.running()
  local co = running()
  return ours[co or false] and co or nil
end

-- A yield out of the filter's own coroutine would leave Envoy with a script that waits for nothing.
function coroutines.yield(...)
  if not ours[running() or false] then
    error("attempt to yield from outside a coroutine", 2)
  end
  return yield(OWN_YIELD, ...)
end

local libraries = {
  string = without(string, "dump"),
  table = copy(table),
  math = copy(math),
  bit = copy(require("bit")),
  os = {time = os.time, date = os.date, clock = os.clock},
  coroutine = coroutines,
}

-- All plugins share the state of the random numbers: what one seeds, another could foretell.
function libraries.math.randomseed() end

-- The methods of strings come from the original library.
string.dump = nil

local pdk = {
  json = without(modules.json, "quote"),
  url = {decode = modules.url.decode, encode = modules.url.encode, parse = modules.url.parse},
  ip = modules.ip,
  cache = modules.cache,
  trim = modules.trim,
  base64 = modules.base64,
  hex = modules.hex,
  sha1 = modules.sha1,
  sha256 = modules.sha256,
  sha384 = modules.sha512.sha384,
  sha512 = modules.sha512.sha512,
  hmac = modules.hmac,
  equal = modules.equal,
  uuid = modules.uuid,
  date = modules.date,
}
for name, f in next, stream.pdk do
  pdk[name] = f
end
for name, f in next, modules.identity do
  pdk[name] = f
end

-- library makes an entry's pdk, with the functions that depend on whose they are.
local function library(plugin, place, services)
  local out = copy(pdk)

  function out.save(handle, key, value)
    stream.pdk.set_metadata(handle, stream.SAVED, place .. key, value)
  end

  function out.saved(handle, key)
    return stream.pdk.metadata(handle, stream.SAVED, place .. key)
  end

  function out.exit(handle, ...)
    stream.answers(handle, plugin)
    return stream.pdk.exit(handle, ...)
  end

  function out.fail(handle, ...)
    stream.answers(handle, plugin)
    return stream.pdk.fail(handle, ...)
  end

  function out.call(handle, name, request)
    return call.wait(handle, name, call.declared(services, name), request)
  end

  function out.send(handle, name, request)
    return call.send(handle, name, call.declared(services, name), request)
  end

  function out.log(handle, level, text)
    if not report.METHODS[level] then
      error("no log level: " .. report.describe(level), 2)
    end
    report.log(handle, level, plugin, tostring(text))
  end

  return out
end

-- environment returns the globals of an entry. place is unique among the entries that one stream runs, services are those
-- that it may call.
local function environment(plugin, place, services)
  local globals = {}
  globals._G = globals
  return setmetatable(globals, {
    __metatable = false,
    __index = function(_, name)
      local value = harmless[name]
      if value == nil then
        if name == "pdk" then
          value = library(plugin, place, services)
        elseif libraries[name] then
          value = copy(libraries[name])
        else
          return nil
        end
      end
      globals[name] = value
      return value
    end,
  })
end

return environment
