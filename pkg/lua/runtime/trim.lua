-- White space at both ends of a text.

local find, match = string.find, string.match

-- trim looks at each byte a few times only. A pattern such as "^%s*(.-)%s*$" goes through the rest of a run of blanks for
-- each of them: a client's header of 60 KB would keep a worker busy for seconds, with more such pieces in it for years.
return function(text)
  local from = find(text, "%S")
  return from and match(text, ".*%S", from) or ""
end
