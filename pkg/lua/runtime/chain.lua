-- From the value of a slot to functions, once for each value.

local modules = ...
local environment, harden, program, report = modules.sandbox, modules.harden, modules.program, modules.report
local stream, settings, json = modules.stream, modules.settings, modules.json

local loadstring, pcall, setfenv, type = loadstring, pcall, setfenv, type
local gsub, sub = string.gsub, string.sub

-- Literals. They are written by package lua and make tables, nothing else: D names a shared table, J joins the pieces of
-- a table that is too large for one function.

local tables = {}
local literals = {}

local function evaluate(literal)
  local chunk, problem = loadstring("return " .. literal, "=config", "t")
  if not chunk then
    error(problem, 0)
  end
  return setfenv(chunk, literals)()
end

-- A shared table is made when a chain first names it; most workers never need most tables.
function literals.D(name)
  if tables[name] == nil then
    if program.shared[name] == nil then
      error("there is no table " .. name, 0)
    end
    tables[name] = evaluate(program.shared[name])
    program.shared[name] = nil
  end
  return tables[name]
end

function literals.J(...)
  local whole = {}
  for i = 1, select("#", ...) do
    for key, value in next, (select(i, ...)()) do
      whole[key] = value
    end
  end
  return whole
end

-- Sources. A source is compiled once, as the body of a function that is made anew for each entry, so that entries have
-- globals of their own and share the code.

local factories, problems = {}, {}

local function compile(id)
  local source = program.sources[id]
  if source == nil then
    return nil, "there is no such source"
  end
  source = gsub(source, "^\239\187\191", "")
  source = gsub(source, "^#[^\n]*", "")
  -- By itself first: only what is a whole chunk may become the body of a function.
  local whole, problem = loadstring(source, "=plugin", "t")
  if not whole then
    return nil, problem
  end
  return loadstring("return function(...) " .. source .. "\nend", "=plugin", "t")
end

local function factory(id)
  if not factories[id] and not problems[id] then
    local made, problem = compile(id)
    factories[id], problems[id] = made, not made and problem or nil
    program.sources[id] = nil
  end
  return factories[id], problems[id]
end

local function functions(chunk, config)
  local plugin = chunk(config)
  if type(plugin) ~= "table" then
    error("the chunk returns a " .. type(plugin) .. ", not a table", 0)
  end
  local request, response = plugin.request, plugin.response
  if request ~= nil and type(request) ~= "function" then
    error("request is a " .. type(request) .. ", not a function", 0)
  elseif response ~= nil and type(response) ~= "function" then
    error("response is a " .. type(response) .. ", not a function", 0)
  end
  return request, response
end

-- load_entry returns the functions of an entry, or nil, nil and what is wrong.
local function load_entry(id, plugin, config, place, services)
  local made, problem = factory(id)
  if not made then
    return nil, nil, problem
  end
  setfenv(made, environment(plugin, place, services))
  local ok, request, response = pcall(functions, made(), config or {})
  if not ok then
    return nil, nil, report.describe(request)
  end
  return request, response
end

-- refusal answers 503 in the place of a plugin that cannot run. A gRPC client gets the bare text (pdk.fail).
local function refusal(plugin)
  local text = plugin ~= "" and "plugin " .. plugin .. " is not available" or "plugin is not available"
  return function(handle)
    stream.answers(handle, plugin)
    if stream.answers_grpc(handle) then
      stream.pdk.exit(handle, 503, {}, text)
    else
      stream.pdk.exit(handle, 503, {["content-type"] = "application/json"}, '{"message":' .. json.quote(text) .. "}")
    end
  end
end

local function refused(plugin)
  return {requests = {{plugin = plugin, run = refusal(plugin)}}, responses = {}}
end

-- build makes a chain of a value. A chain has the request functions in order and the response functions in reverse.
local function build(value, handle)
  if sub(value, 1, 1) ~= "l" then
    error("not a value for this runtime", 0)
  end
  local written = evaluate(sub(value, 2))
  if written.refuse then
    return refused(written.refuse)
  end
  local requests, responses = {}, {}
  for i, entry in ipairs(written) do
    local plugin, open = entry[2], entry[4] == true
    local request, response, problem = load_entry(entry[1], plugin, entry[3], settings.slot .. "/" .. i .. "/", entry.services)
    if problem then
      report.log(handle, "error", plugin, "does not load" .. (open and ", skipped: " or ": ") .. problem)
      request = not open and refusal(plugin) or nil
    end
    if request then
      requests[#requests + 1] = {plugin = plugin, open = open, run = request}
    end
    if response then
      table.insert(responses, 1, {plugin = plugin, open = open, run = response})
    end
  end
  return {requests = requests, responses = responses}
end

-- Chains are remembered by their value, so a known one costs one lookup. Values are config, never a client's; but those
-- that an edit has replaced are never asked for again, so there is a bound: of two generations, the older one is
-- forgotten when the younger is full, and what is in use moves to the younger one in time. A chain of two small plugins
-- takes about 6 KB and 25 us to make, so both generations take below 50 MB in each worker, and only on a gateway with
-- as many chains. cache.lua is the same for plugins; here it would cost each slot of a request 1 us more (measured: 32.4
-- instead of 29.4 us for a request through two Lua plugins).
local GENERATION = 4096
local young, old, size = {}, {}, 0
local hardened = false

local function remember(value, handle)
  local chain = old[value]
  if not chain then
    if not hardened then
      hardened = true
      stream.own = harden()
    end
    local ok
    ok, chain = pcall(build, value, handle)
    if not ok then
      report.log(handle, "error", "", "the chain does not load: " .. report.describe(chain))
      chain = refused("")
    end
  end
  if size >= GENERATION then
    young, old, size = {}, young, 0
  end
  young[value], size = chain, size + 1
  return chain
end

-- of returns the chain of a value.
return function(value, handle)
  return young[value] or remember(value, handle)
end
