-- A script for wrk: requests to each of the hosts of a file in turn, and in the end what became of them as one line.
function init(args)
  requests = {}
  for host in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", "/", {Host = host})
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
