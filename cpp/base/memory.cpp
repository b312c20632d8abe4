#include "base/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/error.h"

#ifndef _WIN32
#include <sys/mman.h>
#endif

namespace hw {

namespace {

// What the many small allocations of a pass need beside the large ones that are counted.
constexpr size_t n_small = 4 << 20;

// The files of a control group that say how much its processes may use, and do.
struct GroupFiles {
    const char* mount;
    const char* limit;
    const char* usage;
    const char* file_pages[2];  // of memory.stat: pages of files, which the kernel takes back before it kills
};
constexpr GroupFiles version_1 = {"/sys/fs/cgroup/memory",
                                  "/memory.limit_in_bytes",
                                  "/memory.usage_in_bytes",
                                  {"total_active_file", "total_inactive_file"}};
constexpr GroupFiles version_2 = {"/sys/fs/cgroup", "/memory.max", "/memory.current", {"active_file", "inactive_file"}};

// The number in a file, or beside a word in it. nothing: there is no such file, or no number ("max").
size_t number_in(const std::string& path, const std::string& word, size_t nothing) {
    std::ifstream file(path);
    size_t number = 0;
    for (std::string found; !word.empty() && file >> found && found != word;) {
    }
    return file >> number ? number : nothing;
}

size_t free_in_group(const GroupFiles& files, const std::string& group) {
    const size_t limit = number_in(group + files.limit, "", SIZE_MAX);
    size_t usage = number_in(group + files.usage, "", 0);
    for (const char* pages : files.file_pages) {
        usage -= std::min(usage, number_in(group + "/memory.stat", pages, 0));
    }
    return limit == SIZE_MAX ? SIZE_MAX : limit - std::min(limit, usage);
}

// Of a group and of all that hold it. In a container the path may be that of the host, of which only the end is there.
size_t free_in_groups(const GroupFiles& files, const std::string& mount, std::string path) {
    size_t free = free_in_group(files, mount);
    while (!path.empty() && path != "/") {
        free = std::min(free, free_in_group(files, mount + path));
        path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
    return free;
}

}  // namespace

size_t free_host_memory(const std::string& root) {
    const size_t kib = number_in(root + "/proc/meminfo", "MemAvailable:", SIZE_MAX);
    size_t free = kib == SIZE_MAX ? SIZE_MAX : kib * 1024;
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // number:controllers:path, of version 2 "0::path"
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (second == std::string::npos) {
            continue;
        }
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool is_version_1 = controllers.find(",memory,") != std::string::npos;
        if (is_version_1 || controllers == ",,") {
            const GroupFiles& files = is_version_1 ? version_1 : version_2;
            free = std::min(free, free_in_groups(files, root + files.mount, line.substr(second + 1)));
        }
    }
    return free;
}

// By the kernel's own call where there is one: malloc would change its ways after a large free.
void require_memory(size_t n_bytes, const char* what) {
    const size_t n = n_bytes + n_small;
#ifdef _WIN32
    void* memory = std::malloc(n);
    const bool is_there = memory != nullptr;
    std::free(memory);
#else
    void* memory = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const bool is_there = memory != MAP_FAILED;
    if (is_there) {
        munmap(memory, n);
    }
#endif
    if (!is_there) {
        fail(HW_ERROR_MEMORY, "no memory for %s (%.0f MiB)", what, static_cast<double>(n) / (1 << 20));
    }
}

}  // namespace hw
