#include "tests/support/sqlite_fault_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace lasp::testing {
namespace {

constexpr sqlite3_int64 kPage = 4096;

// What connections to one file have written and not synced.
struct Unsynced {
  std::mutex mutex;
  std::map<sqlite3_int64, std::string> pages;
  // The file's size as the program sees it.
  sqlite3_int64 size = 0;
  // How much of the real file still counts.
  sqlite3_int64 real_size = 0;
};

struct Context {
  sqlite3_vfs* real = nullptr;
  DiskFaults* faults = nullptr;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Unsynced>> files;
};

struct FaultFile {
  sqlite3_file base;
  Context* context;
  std::shared_ptr<Unsynced>* unsynced;

  // The real file's structure follows in memory.

  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

FaultFile* Cast(sqlite3_file* file) { return reinterpret_cast<FaultFile*>(file); }

const sqlite3_io_methods* Real(sqlite3_file* file) { return Cast(file)->real()->pMethods; }

int ReadReal(FaultFile* file, const Unsynced& unsynced, void* buffer, sqlite3_int64 size,
             sqlite3_int64 offset) {
  std::memset(buffer, 0, static_cast<size_t>(size));
  const sqlite3_int64 available = std::clamp<sqlite3_int64>(unsynced.real_size - offset, 0, size);
  if (available == 0) {
    return SQLITE_OK;
  }
  const int code =
      file->real()->pMethods->xRead(file->real(), buffer, static_cast<int>(available), offset);
  return code == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : code;
}

int Close(sqlite3_file* file) {
  delete Cast(file)->unsynced;
  return Real(file)->xClose(Cast(file)->real());
}

int Read(sqlite3_file* file, void* buffer, int size, sqlite3_int64 offset) {
  if (Cast(file)->unsynced == nullptr) {
    return Real(file)->xRead(Cast(file)->real(), buffer, size, offset);
  }
  Unsynced& unsynced = **Cast(file)->unsynced;
  const std::lock_guard<std::mutex> lock(unsynced.mutex);
  if (const int code = ReadReal(Cast(file), unsynced, buffer, size, offset); code != SQLITE_OK) {
    return code;
  }
  for (auto page = unsynced.pages.lower_bound(offset / kPage * kPage);
       page != unsynced.pages.end() && page->first < offset + size; ++page) {
    const sqlite3_int64 from = std::max(offset, page->first);
    const sqlite3_int64 to = std::min(offset + size, page->first + kPage);
    std::memcpy(static_cast<char*>(buffer) + (from - offset),
                page->second.data() + (from - page->first), static_cast<size_t>(to - from));
  }
  return offset + size > unsynced.size ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

int Write(sqlite3_file* file, const void* buffer, int size, sqlite3_int64 offset) {
  if (Cast(file)->context->faults->full) {
    return SQLITE_FULL;
  }
  if (Cast(file)->unsynced == nullptr) {
    return Real(file)->xWrite(Cast(file)->real(), buffer, size, offset);
  }
  Unsynced& unsynced = **Cast(file)->unsynced;
  const std::lock_guard<std::mutex> lock(unsynced.mutex);
  for (sqlite3_int64 start = offset / kPage * kPage; start < offset + size; start += kPage) {
    std::string& page = unsynced.pages[start];
    if (page.empty()) {
      page.resize(kPage);
      if (const int code = ReadReal(Cast(file), unsynced, page.data(), kPage, start);
          code != SQLITE_OK) {
        return code;
      }
    }
    const sqlite3_int64 from = std::max(offset, start);
    const sqlite3_int64 to = std::min(offset + size, start + kPage);
    std::memcpy(page.data() + (from - start), static_cast<const char*>(buffer) + (from - offset),
                static_cast<size_t>(to - from));
  }
  unsynced.size = std::max(unsynced.size, offset + size);
  return SQLITE_OK;
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  if (Cast(file)->unsynced == nullptr) {
    return Real(file)->xTruncate(Cast(file)->real(), size);
  }
  Unsynced& unsynced = **Cast(file)->unsynced;
  const std::lock_guard<std::mutex> lock(unsynced.mutex);
  unsynced.pages.erase(unsynced.pages.lower_bound(size), unsynced.pages.end());
  unsynced.size = size;
  unsynced.real_size = std::min(unsynced.real_size, size);
  return SQLITE_OK;
}

int Sync(sqlite3_file* file, int flags) {
  DiskFaults& faults = *Cast(file)->context->faults;
  if (faults.full) {
    return SQLITE_IOERR_FSYNC;
  }
  ++faults.sync_count;
  if (const int64_t delay = faults.sync_delay_micros; delay > 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
  }
  sqlite3_file* real = Cast(file)->real();
  if (Cast(file)->unsynced != nullptr) {
    Unsynced& unsynced = **Cast(file)->unsynced;
    const std::lock_guard<std::mutex> lock(unsynced.mutex);
    for (const auto& [start, page] : unsynced.pages) {
      const auto size = static_cast<int>(std::min(kPage, unsynced.size - start));
      if (size <= 0) {
        continue;
      }
      if (const int code = real->pMethods->xWrite(real, page.data(), size, start);
          code != SQLITE_OK) {
        return code;
      }
    }
    unsynced.pages.clear();
    if (const int code = real->pMethods->xTruncate(real, unsynced.size); code != SQLITE_OK) {
      return code;
    }
    unsynced.real_size = unsynced.size;
  }
  return real->pMethods->xSync(real, flags);
}

int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  if (Cast(file)->unsynced == nullptr) {
    return Real(file)->xFileSize(Cast(file)->real(), size);
  }
  Unsynced& unsynced = **Cast(file)->unsynced;
  const std::lock_guard<std::mutex> lock(unsynced.mutex);
  *size = unsynced.size;
  return SQLITE_OK;
}

int Lock(sqlite3_file* file, int level) { return Real(file)->xLock(Cast(file)->real(), level); }

int Unlock(sqlite3_file* file, int level) { return Real(file)->xUnlock(Cast(file)->real(), level); }

int CheckReservedLock(sqlite3_file* file, int* result) {
  return Real(file)->xCheckReservedLock(Cast(file)->real(), result);
}

int FileControl(sqlite3_file* file, int operation, void* argument) {
  // A hint about the size would make the real file longer than what has been synced.
  if (operation == SQLITE_FCNTL_SIZE_HINT || operation == SQLITE_FCNTL_CHUNK_SIZE) {
    return SQLITE_NOTFOUND;
  }
  return Real(file)->xFileControl(Cast(file)->real(), operation, argument);
}

int SectorSize(sqlite3_file* file) { return Real(file)->xSectorSize(Cast(file)->real()); }

int DeviceCharacteristics(sqlite3_file* file) {
  return Real(file)->xDeviceCharacteristics(Cast(file)->real());
}

int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** memory) {
  return Real(file)->xShmMap(Cast(file)->real(), page, size, extend, memory);
}

int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
  return Real(file)->xShmLock(Cast(file)->real(), offset, count, flags);
}

void ShmBarrier(sqlite3_file* file) { Real(file)->xShmBarrier(Cast(file)->real()); }

int ShmUnmap(sqlite3_file* file, int remove) {
  return Real(file)->xShmUnmap(Cast(file)->real(), remove);
}

// Version 2: no memory-mapped reads, which would go past Read.
constexpr sqlite3_io_methods kMethods = {2,
                                         Close,
                                         Read,
                                         Write,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Unlock,
                                         CheckReservedLock,
                                         FileControl,
                                         SectorSize,
                                         DeviceCharacteristics,
                                         ShmMap,
                                         ShmLock,
                                         ShmBarrier,
                                         ShmUnmap,
                                         nullptr,
                                         nullptr};

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  auto* context = static_cast<Context*>(vfs->pAppData);
  FaultFile* fault = Cast(file);
  fault->base.pMethods = nullptr;
  fault->context = context;
  fault->unsynced = nullptr;
  const int code = context->real->xOpen(context->real, name, fault->real(), flags, out_flags);
  if (code != SQLITE_OK) {
    return code;
  }
  constexpr int kDurable = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
  if (context->faults->drop_unsynced && name != nullptr && (flags & kDurable) != 0) {
    const std::lock_guard<std::mutex> lock(context->mutex);
    std::shared_ptr<Unsynced>& shared = context->files[name];
    if (shared == nullptr) {
      shared = std::make_shared<Unsynced>();
      fault->real()->pMethods->xFileSize(fault->real(), &shared->size);
      shared->real_size = shared->size;
    }
    fault->unsynced = new std::shared_ptr<Unsynced>(shared);
  }
  fault->base.pMethods = &kMethods;
  return SQLITE_OK;
}

int Delete(sqlite3_vfs* vfs, const char* name, int sync_directory) {
  auto* context = static_cast<Context*>(vfs->pAppData);
  {
    const std::lock_guard<std::mutex> lock(context->mutex);
    context->files.erase(name);
  }
  return context->real->xDelete(context->real, name, sync_directory);
}

}  // namespace

void RegisterFaultVfs(const char* name, DiskFaults* faults) {
  // SQLite keeps both for ever.
  auto* context = new Context();
  context->real = sqlite3_vfs_find(nullptr);
  context->faults = faults;
  auto* vfs = new sqlite3_vfs(*context->real);
  vfs->zName = name;
  vfs->pNext = nullptr;
  vfs->pAppData = context;
  vfs->szOsFile = static_cast<int>(sizeof(FaultFile)) + context->real->szOsFile;
  vfs->xOpen = Open;
  vfs->xDelete = Delete;
  sqlite3_vfs_register(vfs, /*makeDflt=*/0);
}

}  // namespace lasp::testing
