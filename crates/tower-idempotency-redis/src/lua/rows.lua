-- The rows of one namespace: they are read, compared and set in one step. `src/wire.rs` writes what is passed here, and
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

local M, O, I, X, S = unpack(KEYS, 1, 5)
local HEADER, ZERO, ONE = 156, string.rep('0', 20), string.rep('0', 19) .. '1'
local MOST, NONE = '18446744073709551615', string.rep('-', 20)
local MET, LARGE, CUT = 16384, 2048, 1024
local RUNNING, INTERRUPTED, RELEASED = '+00001', '+00002', '+00005'
local SESSION, DISPUTED = '+00006', '+00007'
local GRACE = string.format('%020.0f', 600000)

local call, sub, format = redis.call, string.sub, string.format
local prefix = sub(M, 1, -2)

local function min(a, b) return a < b and a or b end
local function max(a, b) return a > b and a or b end

-- The sum of two numbers of 20 digits, exactly, and no more than the greatest of 64 bits.
local function plus(a, b)
  local low, high = tonumber(sub(a, 11)) + tonumber(sub(b, 11)), tonumber(sub(a, 1, 10)) + tonumber(sub(b, 1, 10))
  if low >= 1e10 then low, high = low - 1e10, high + 1 end
  return high >= 1e10 and MOST or min(format('%010.0f%010.0f', high, low), MOST)
end

-- Milliseconds as microseconds.
local function micros(millis)
  return sub(millis, 1, 3) == '000' and min(sub(millis, 4) .. '000', MOST) or MOST
end

local function is_open(kind) return kind == RUNNING or kind == INTERRUPTED or kind == DISPUTED end
local function is_operation(kind) return kind ~= RELEASED and kind ~= SESSION and kind ~= DISPUTED end

local clock = call('TIME')
local now = format('%020.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local earliest, latest = min(ARGV[2], now), max(ARGV[3], now)

-- The parts of a header that decide. Nil if there is no row; a row that is no row of this release is `odd`.
local function parsed(head)
  if head == '' then return nil end
  if #head < HEADER or sub(head, 1, 1) ~= '1' then return { odd = true } end
  return {
    token = sub(head, 2, 17), fence = sub(head, 18, 37), kind = sub(head, 38, 43), session = sub(head, 44, 76),
    until_ = sub(head, 77, 96), began = sub(head, 97, 116), since = sub(head, 117, 136), expires = sub(head, 137, 156),
  }
end

local function is_live(row) return row and not row.odd and row.expires > earliest end
local function head_of(key) return call('GETRANGE', key, 0, HEADER - 1) end

-- The header that the write with its arguments from `a` on makes of a row, or nil if it does not change it.
local function made(row, a)
  local token, expect, mode, floor, kind, session, bound, began, since, expires = unpack(ARGV, a, a + 9)
  local live = is_live(row) and row or nil
  local again = live and live.token == token and live or nil
  local is_expected = expect == '' and not live or live and live.token == expect
  if not is_expected and not again then return nil end
  local old, fence = row and row.fence or ZERO, nil
  if again or (live and mode == 'k') then fence = live.fence
  elseif mode == 'e' then fence = max(floor, old)
  else fence = max(micros(latest), plus(max(old, floor), ONE)) end
  local function stamp(stamp_mode, value, name)
    local kept = again
    if stamp_mode == 'k' then kept = live end
    return kept and kept[name] or value
  end
  local function counted(duration, name)
    local kept = again and again[name] ~= NONE and again[name] or ZERO
    return max(plus(latest, duration), kept)
  end
  return '1' .. token .. fence .. kind .. (session == '' and '0' .. string.rep('\0', 32) or '1' .. session)
    .. (bound == '' and NONE or counted(bound, 'until_'))
    .. stamp(began, earliest, 'began') .. stamp(since, now, 'since')
    .. (expires == '' and (live and live.expires or latest) or counted(expires, 'expires'))
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

local answer = { now, '', '' }
local function add(value) answer[#answer + 1] = value or false end

-- The rows of the call as they are before it. If one of them is odd, nothing is done.
local rows = {}
for k = 6, #KEYS do
  rows[k] = parsed(head_of(KEYS[k]))
  if rows[k] and rows[k].odd then
    return redis.error_reply('TIROW the key ' .. prefix .. 'r: has a row that this release does not know')
  end
end

local operations = {}

function operations.get()
  for k = 6, #KEYS do add(is_live(rows[k]) and call('GET', KEYS[k])) end
end

function operations.put()
  local heads = {}
  for k = 6, #KEYS do heads[k] = made(rows[k], 5 + (k - 6) * 11) end
  for k = 6, #KEYS do
    if heads[k] then
      set(KEYS[k], rows[k], heads[k], ARGV[15 + (k - 6) * 11])
      -- The process has the state that it wrote.
      add(sub(heads[k], 137, 156) > earliest and heads[k])
    elseif is_live(rows[k]) and call('STRLEN', KEYS[k]) > HEADER + MET then
      add(head_of(KEYS[k]))
    else
      add(is_live(rows[k]) and call('GET', KEYS[k]))
    end
  end
end

function operations.adopt()
  for k = 6, #KEYS do
    local old, a = rows[k], 5 + (k - 6) * 2
    local is_free = not old or (not is_live(old) and old.fence < parsed(ARGV[a]).fence)
    if is_free then set(KEYS[k], old, ARGV[a], ARGV[a + 1]) end
    add(is_free and 1 or 0)
  end
end

-- Walks over an index after a member, and adds the rows that are meant: of a large state, a list may have only the
-- beginning. The first part of the answer is the member at which the next call goes on, or an empty text at the end.
local function walk(index, is_meant)
  local after, limit, batch = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local members = call('ZRANGE', index, after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, batch)
  add('')
  local place = #answer
  for n, member in ipairs(members) do
    local id = sub(member, -32)
    local key = prefix .. 'r:' .. id
    local row = parsed(head_of(key))
    if is_live(row) and is_meant(row, member) then
      local is_cut = (index == I or row.kind == DISPUTED) and call('STRLEN', key) > HEADER + LARGE
      add(id .. call('GETRANGE', key, 0, is_cut and HEADER + CUT - 1 or -1))
    end
    answer[place] = n == #members and n < batch and '' or member
    if #answer - place >= limit then return end
  end
end

function operations.list()
  local alive = {}
  for a = 8, #ARGV do alive['1' .. ARGV[a]] = true end
  walk(O, function(row, member)
    if row.began ~= sub(member, 1, 20) or not is_open(row.kind) then return false end
    return row.kind ~= RUNNING or row.until_ == NONE or row.until_ <= earliest or not alive[row.session]
  end)
end

function operations.sessions()
  walk(S, function(row) return row.kind == SESSION end)
end

function operations.scan()
  walk(I, function(row) return is_operation(row.kind) end)
end

function operations.sweep()
  local past = format('%.0f', tonumber(earliest) - tonumber(GRACE))
  local ids, deleted = call('ZRANGE', X, '-inf', past, 'BYSCORE', 'LIMIT', 0, ARGV[5]), 0
  for _, id in ipairs(ids) do
    local key = prefix .. 'r:' .. id
    local row = parsed(head_of(key))
    if row and (row.odd or plus(row.expires, GRACE) > earliest) then
      -- A later release sweeps an odd row.
      call('ZADD', X, row.odd and '+inf' or row.expires, id)
    else
      call('UNLINK', key)
      for _, index in ipairs({ X, I, S }) do call('ZREM', index, id) end
      if row then call('ZREM', O, row.began .. id) end
      deleted = deleted + (row and 1 or 0)
    end
  end
  add(#ids)
  add(deleted)
end

-- A primary that was demoted takes writes of connections that stay, if replicas may be written.
local info = call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no primary any more')
end
answer[3] = call('HGET', M, 'm') or ARGV[4]
operations[ARGV[1]]()
if answer[3] == ARGV[4] then call('HSET', M, 'm', answer[3]) end
call('HSET', M, 'b', now)
answer[2] = string.match(info, 'master_replid:(%x+)') or ''
return answer
