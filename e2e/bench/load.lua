-- A script for wrk: sends each of the requests of a file in turn, which are separated by zero bytes, and prints in the end
-- what became of them as one line.
function init(args)
  requests = {}
  for request in io.open(args[1]):read("*a"):gmatch("%Z+") do
    requests[#requests + 1] = request
  end
  at = 0
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary)
  local e = summary.errors
  io.write(string.format("\nbench %d %d\n", summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
