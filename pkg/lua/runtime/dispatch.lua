-- The two functions that Envoy calls.

local modules = ...
local chain_of, report, stream = modules.chain, modules.report, modules.stream
local slot, responding, draining = modules.settings.slot, modules.stream.responding, modules.stream.draining
local pcall = pcall

-- Nothing may be raised outside a pcall: Envoy logs an error that leaves the script and lets the request pass.

local function answer_failure(handle, plugin)
  stream.answers(handle, plugin)
  stream.pdk.fail(handle, 500, "An unexpected error occurred", {request_id = true})
end

-- failed tells what becomes of a stream whose plugin raised an error: it goes on under FailOpen.
local function failed(handle, entry, problem)
  report.log(handle, "error", entry.plugin, (entry.open and "skipped: " or "failed: ") .. report.describe(problem))
  if not entry.open then
    pcall(answer_failure, handle, entry.plugin)
  end
  return not entry.open
end

function envoy_on_request(handle)
  local value = handle:streamInfo():filterState():get(slot)
  if value == nil then
    return
  end
  local chain = chain_of(value, handle)
  if chain.responses[1] then
    stream.keep(handle)
  end
  local requests = chain.requests
  for i = 1, #requests do
    local entry = requests[i]
    local ok, problem = pcall(entry.run, handle)
    if not ok and failed(handle, entry, problem) then
      return
    end
  end
end

function envoy_on_response(handle)
  local value = handle:streamInfo():filterState():get(slot)
  if value == nil then
    return
  end
  local responses = chain_of(value, handle).responses
  if not responses[1] then
    return
  end
  responding[handle] = true
  for i = 1, #responses do
    local entry = responses[i]
    local ok, problem = pcall(entry.run, handle)
    if not ok and problem ~= stream.STOP then
      failed(handle, entry, problem)
    end
  end
  responding[handle] = nil
  if draining[handle] then
    pcall(stream.drain, handle, stream.own.bodyChunks)
  end
end
