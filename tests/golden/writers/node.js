// Write a golden database through an npm package: node.js PACKAGE DIRECTORY; prints what the database says of itself.
// DIRECTORY/work/db is the database while it is open, DIRECTORY/db the copy that is kept.
'use strict'

const fs = require('fs')
const path = require('path')
const { promisify } = require('util')

const key = (number) => String(number).padStart(6, '0')

async function classicLevel (Package, place) {
  const db = new Package.ClassicLevel(place, { writeBufferSize: 4096, compression: false })
  await db.open()
  for (let number = 0; number < 600; number++) await db.put(key(number % 400), 'value '.repeat(6))
  await db.compactRange(key(0), key(300))
  await db.put(key(1000), 'last')
  return () => ({ sstables: { default: db.getProperty('leveldb.sstables') } })
}

async function rocksdb (Package, place) {
  for (let step = 0; ; step++) {
    const db = Package(place)
    await promisify(db.open.bind(db))({ createIfMissing: true, writeBufferSize: 65536 })
    const put = promisify(db.put.bind(db))
    for (let number = 0; number < 50; number++) await put(key(step * 20 + number), 'value '.repeat(6))
    if (step === 4) return () => ({ sstables: { default: db.getProperty('rocksdb.sstables') } })
    await promisify(db.close.bind(db))()
  }
}

async function nxtedition (Package, place) {
  const columns = { default: {}, one: { compression: false }, two: {} }
  for (let step = 0; ; step++) {
    const db = new Package.RocksLevel(place, { keyEncoding: 'utf8', valueEncoding: 'utf8' })
    await db.open({ createIfMissing: true, columns })
    for (const column of Object.values(db.columns)) {
      const batch = db.batch()
      for (let number = 0; number < 30; number++) batch.put(key(step * 10 + number), 'value '.repeat(6), { column })
      await batch.write()
    }
    if (step === 4) {
      return () => ({
        latest_sequence_number: db.sequence,
        sstables: { default: db.getProperty('rocksdb.sstables') }
      })
    }
    await db.close()
  }
}

async function native (Package, place) {
  const blobs = new Package.ColumnFamily('blobs', { enableBlobFiles: true, minBlobSize: 50, blobFileSize: 1 << 20 })
  const root = new Package(place, { columnFamilies: [blobs] })
  await root.ready()
  const sessions = [root, root.columnFamily(blobs)]
  for (let step = 0; step < 4; step++) {
    for (const db of sessions) {
      const write = db.write()
      for (let number = 0; number < 30; number++) write.put(key(step * 10 + number), 'value '.repeat(20))
      await write.flush()
      write.destroy()
      if (step < 3) await db.flush()
    }
  }
  const told = {}
  for (const [index, db] of sessions.entries()) {
    told[['default', 'blobs'][index]] = await db.getProperty('rocksdb.sstables')
  }
  return () => ({ sstables: told })
}

const packages = {
  'classic-level': classicLevel,
  rocksdb,
  '@nxtedition/rocksdb': nxtedition,
  'rocksdb-native': native
}

async function main () {
  const [name, directory] = process.argv.slice(2)
  const place = path.join(directory, 'work', 'db')
  fs.mkdirSync(path.dirname(place), { recursive: true })
  const tell = await packages[name](require(name), place)
  await new Promise((resolve) => setTimeout(resolve, 1000)) // for compactions to come to rest
  fs.cpSync(place, path.join(directory, 'db'), { recursive: true })
  const told = JSON.stringify({ latest_sequence_number: null, ...tell() })
  process.stdout.write(told + '\n', () => process.kill(process.pid, 'SIGKILL')) // nothing is closed
}

main()
