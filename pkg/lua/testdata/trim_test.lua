-- trim.
local check = dofile("testdata/check.lua")
local trim = check.load("trim").trim

check.equal(trim(""), "", "empty")
check.equal(trim("a"), "a", "nothing to do")
check.equal(trim(" a"), "a", "in front")
check.equal(trim("a \t\r\n"), "a", "behind")
check.equal(trim("  a  b  "), "a  b", "not inside")
check.equal(trim(" \t "), "", "nothing else")
check.equal(trim(" \0 "), "\0", "NUL is none")
check.equal(trim(" \194\160 "), "\194\160", "nor are blanks of Unicode")
check.equal(trim("\n a\nb \n"), "a\nb", "lines")

-- These would not end within a day if each blank made it look at all the others.
local blanks = (" "):rep(2 ^ 24)
check.equal(trim(blanks), "", "blanks")
check.equal(trim("a" .. blanks .. "b"), "a" .. blanks .. "b", "blanks inside")
check.equal(trim(blanks .. "a" .. blanks), "a", "blanks around")
check.equal(trim(("a "):rep(2 ^ 20)), ("a "):rep(2 ^ 20 - 1) .. "a", "blanks in between")
check.finish()
