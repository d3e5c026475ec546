-- The rows of one namespace: they are read, compared and set in one step. `src/wire` writes what is passed here, and
-- reads what is answered. `Write::apply_to` of tower-idempotency-shared says the same in Rust; a test compares them.
--
-- KEYS: the hash m, the sorted sets o, i, x and s, and then the rows of the call.
-- ARGV: the operation, the earliest and the latest time of the process, a marker, and what the operation needs.
--
-- A row is a header of 156 bytes, and then its state. Numbers are decimal digits, 20 of them, so that they compare as
-- texts do, and no digit is lost in a double:
--   1 version, 2-17 token, 18-37 fence, 38-43 kind, 44 whether there is a session, 45-76 session, 77-96 until or dashes,
--   97-116 began, 117-136 since, 137-156 expires
--
-- Rules:
-- 1. All is judged before the first write. A row gets its entries in the indexes before it is set, and loses others
--    after that. So an index has too much rather than too little, and readers look at the row.
-- 2. Each call that shows rows ends with a write, on the same connection, for which WAIT can wait.
-- 3. No loop is longer than its caller has said: another client waits for the script.
-- 4. No key has a time to live. `sweep` alone deletes.

local M, O, I, X, S = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local HEADER, ZERO, ONE = 156, string.rep('0', 20), string.rep('0', 19) .. '1'
local MOST, NONE = '18446744073709551615', string.rep('-', 20)
local MET, LARGE, CUT = 16384, 2048, 1024
local RUNNING, INTERRUPTED, RELEASED = '+00001', '+00002', '+00005'
local SESSION, DISPUTED = '+00006', '+00007'
local GRACE = 600000

local call, sub, format = redis.call, string.sub, string.format
local prefix = sub(M, 1, -2)

local function min(a, b) if a < b then return a end return b end
local function max(a, b) if a > b then return a end return b end

-- The sum of two numbers of 20 digits, exactly, and no more than the greatest of 64 bits.
local function plus(a, b)
  local low, carry = tonumber(sub(a, 11)) + tonumber(sub(b, 11)), 0
  if low >= 1e10 then low, carry = low - 1e10, 1 end
  local high = tonumber(sub(a, 1, 10)) + tonumber(sub(b, 1, 10)) + carry
  if high >= 1e10 then return MOST end
  return min(format('%010.0f%010.0f', high, low), MOST)
end

-- Milliseconds as microseconds.
local function micros(millis)
  if sub(millis, 1, 3) ~= '000' then return MOST end
  return min(sub(millis, 4) .. '000', MOST)
end

local function is_open(kind) return kind == RUNNING or kind == INTERRUPTED or kind == DISPUTED end
local function is_operation(kind) return kind ~= RELEASED and kind ~= SESSION and kind ~= DISPUTED end

local clock = call('TIME')
local now = format('%020.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local earliest, latest = min(ARGV[2], now), max(ARGV[3], now)

-- The parts of a header that decide. Nil if there is no row; a row that is no row of this release is `odd`.
local function parsed(head)
  if not head or head == '' then return nil end
  if #head < HEADER or sub(head, 1, 1) ~= '1' then return { odd = true } end
  return {
    token = sub(head, 2, 17), fence = sub(head, 18, 37), kind = sub(head, 38, 43), session = sub(head, 44, 76),
    until_ = sub(head, 77, 96), began = sub(head, 97, 116), since = sub(head, 117, 136), expires = sub(head, 137, 156),
  }
end

local function is_live(row) return row and not row.odd and row.expires > earliest end

-- The header that a write makes of a row, or nil if it does not change it.
local function made(row, w)
  local live = is_live(row) and row or nil
  local again = live and live.token == w.token and live or nil
  local expected
  if w.expect == '' then expected = not live else expected = live and live.token == w.expect end
  if not expected and not again then return nil end
  local fence
  if again or (live and w.mode == 'k') then
    fence = live.fence
  elseif w.mode == 'e' then
    fence = row and max(w.fence, row.fence) or w.fence
  else
    local last = max(row and row.fence or ZERO, w.mode == 'k' and ZERO or w.fence)
    fence = max(micros(latest), plus(last, ONE))
  end
  local function stamp(mode, value, name)
    if mode == 'k' then return live and live[name] or value end
    return again and again[name] or value
  end
  local function counted(duration, kept)
    local count = plus(latest, duration)
    if kept and kept ~= NONE then return max(count, kept) end
    return count
  end
  local bound = w.bound == '' and NONE or counted(w.bound, again and again.until_)
  local expires
  if w.expires == '' then expires = live and live.expires or latest
  else expires = counted(w.expires, again and again.expires) end
  local session = w.session == '' and '0' .. string.rep('\0', 32) or '1' .. w.session
  return '1' .. w.token .. fence .. w.kind .. session .. bound .. stamp(w.began, earliest, 'began')
    .. stamp(w.since, now, 'since') .. expires
end

local function set(key, old, head, state)
  local id, new = sub(key, -32), parsed(head)
  if is_open(new.kind) then call('ZADD', O, 0, new.began .. id) end
  if is_operation(new.kind) then call('ZADD', I, 0, id) end
  if new.kind == SESSION then call('ZADD', S, 0, id) end
  call('ZADD', X, new.expires, id)
  call('SET', key, head .. state)
  if old then
    if is_open(old.kind) and not (is_open(new.kind) and old.began == new.began) then
      call('ZREM', O, old.began .. id)
    end
    if is_operation(old.kind) and not is_operation(new.kind) then call('ZREM', I, id) end
    if old.kind == SESSION and new.kind ~= SESSION then call('ZREM', S, id) end
  end
  -- A right that is missing must not stop the script here: the row is written.
  if new.kind ~= RUNNING and new.kind ~= SESSION then redis.pcall('PUBLISH', prefix .. 'c', id) end
end

local function head_of(key) return call('GETRANGE', key, 0, HEADER - 1) end

-- The row as a list has it: of a large state only the beginning.
local function cut(key)
  if call('STRLEN', key) > HEADER + LARGE then return call('GETRANGE', key, 0, HEADER + CUT - 1) end
  return call('GET', key)
end

local function odd(key)
  return redis.error_reply('TIROW the key ' .. sub(key, 1, -33) .. ' has a row that this release does not know')
end

local answer = { now, '', '' }
local function add(value) answer[#answer + 1] = value end

local operations = {}

function operations.get()
  for k = 6, #KEYS do
    local value = call('GET', KEYS[k])
    local row = parsed(value)
    if row and row.odd then return odd(KEYS[k]) end
    add(is_live(row) and value or false)
  end
end

function operations.put()
  local olds, heads, states = {}, {}, {}
  for k = 6, #KEYS do
    local a = 5 + (k - 6) * 11
    local old = parsed(head_of(KEYS[k]))
    if old and old.odd then return odd(KEYS[k]) end
    olds[k], states[k] = old, ARGV[a + 10]
    heads[k] = made(old, {
      token = ARGV[a], expect = ARGV[a + 1], mode = ARGV[a + 2], fence = ARGV[a + 3], kind = ARGV[a + 4],
      session = ARGV[a + 5], bound = ARGV[a + 6], began = ARGV[a + 7], since = ARGV[a + 8], expires = ARGV[a + 9],
    })
  end
  for k = 6, #KEYS do
    if heads[k] then
      set(KEYS[k], olds[k], heads[k], states[k])
      -- The process has the state that it wrote.
      add(sub(heads[k], 137, 156) > earliest and heads[k])
    elseif not is_live(olds[k]) then
      add(false)
    elseif call('STRLEN', KEYS[k]) > HEADER + MET then
      add(head_of(KEYS[k]))
    else
      add(call('GET', KEYS[k]))
    end
  end
end

function operations.adopt()
  local olds, is_free = {}, {}
  for k = 6, #KEYS do
    local old, new = parsed(head_of(KEYS[k])), parsed(ARGV[5 + (k - 6) * 2])
    if old and old.odd then return odd(KEYS[k]) end
    olds[k], is_free[k] = old, not old or (not is_live(old) and old.fence < new.fence)
  end
  for k = 6, #KEYS do
    if is_free[k] then set(KEYS[k], olds[k], ARGV[5 + (k - 6) * 2], ARGV[6 + (k - 6) * 2]) end
    add(is_free[k] and 1 or 0)
  end
end

-- Walks over an index after a member, and adds the rows that are meant. The first part of the answer is the member at
-- which the next call goes on, or an empty text at the end.
local function walk(index, after, limit, batch, is_meant)
  local members = call('ZRANGE', index, after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, batch)
  add('')
  local place = #answer
  for n, member in ipairs(members) do
    local key = prefix .. 'r:' .. sub(member, -32)
    local row = parsed(head_of(key))
    if is_live(row) and is_meant(row, member) then
      local is_cut = index == I or row.kind == DISPUTED
      add(sub(member, -32) .. (is_cut and cut(key) or call('GET', key)))
    end
    local is_last = n == #members and n < batch
    answer[place] = is_last and '' or member
    if #answer - place >= limit then return end
  end
end

function operations.list()
  local alive = {}
  for a = 8, #ARGV do alive['1' .. ARGV[a]] = true end
  walk(O, ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), function(row, member)
    if row.began ~= sub(member, 1, 20) then return false end
    if row.kind ~= RUNNING then return is_open(row.kind) end
    if row.until_ == NONE or row.until_ <= earliest then return true end
    return not alive[row.session]
  end)
end

function operations.sessions()
  walk(S, ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), function(row) return row.kind == SESSION end)
end

function operations.scan()
  walk(I, ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), function(row) return is_operation(row.kind) end)
end

function operations.sweep()
  local past = format('%.0f', tonumber(earliest) - GRACE)
  local ids, deleted = call('ZRANGE', X, '-inf', past, 'BYSCORE', 'LIMIT', 0, ARGV[5]), 0
  for _, id in ipairs(ids) do
    local key = prefix .. 'r:' .. id
    local row = parsed(head_of(key))
    if row and row.odd then
      -- A later release sweeps it.
      call('ZADD', X, '+inf', id)
    elseif row and plus(row.expires, format('%020.0f', GRACE)) > earliest then
      call('ZADD', X, row.expires, id)
    else
      call('UNLINK', key)
      call('ZREM', X, id)
      call('ZREM', I, id)
      call('ZREM', S, id)
      if row then
        call('ZREM', O, row.began .. id)
        deleted = deleted + 1
      end
    end
  end
  add(#ids)
  add(deleted)
end

local marker = call('HGET', M, 'm')
local failed = operations[ARGV[1]]()
if failed then return failed end
if marker then
  call('HSET', M, 'b', now)
else
  marker = ARGV[4]
  call('HSET', M, 'm', marker, 'b', now)
end
answer[2] = string.match(call('INFO', 'replication'), 'master_replid:(%x+)') or ''
answer[3] = marker
return answer
