// NCCL's sums over the GPUs of several processes, by sockets. As the real one it waits for ever for a rank that has ended, until it
// is told to give up; and it connects beside other work, at the first sum.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "gpu.h"

namespace {
enum Result { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7 };
constexpr int FLOAT32 = 7, SUM = 0;
constexpr unsigned MAGIC = 0xcafebeef;

struct Id {
    char name[128];
};

// As far as nccl.h had it in 2.17.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

struct Group;

struct Sum {
    float* numbers;
    size_t count;
    Group* group;
    gpu::Stream* stream;
};

struct Group {
    Id id;
    int rank, count;
    // Of the first rank one to each other, of another the one to the first.
    std::vector<int> sockets;
    int listening = -1;
    // What it was given and has not put on its stream yet, and how often it was asked since whether it is ready.
    std::vector<Sum> starting;
    int asked = 0;
    bool given_up = false;
};
thread_local std::vector<Sum> grouped;
thread_local bool is_grouping = false;

sockaddr_un address(const Id& id, socklen_t& length) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    size_t name = strnlen(id.name, 100);
    memcpy(address.sun_path + 1, id.name, name);
    length = (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + name);
    return address;
}

void connect_all(Group& group) {
    if (!group.sockets.empty()) return;
    socklen_t length;
    sockaddr_un to = address(group.id, length);
    if (group.rank == 0) {
        group.sockets.resize(group.count - 1);
        for (int i = 1; i < group.count; i++) {
            int socket = accept(group.listening, nullptr, nullptr), rank = 0;
            if (read(socket, &rank, sizeof(rank)) == sizeof(rank)) group.sockets[rank - 1] = socket;
        }
        return;
    }
    int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(socket, reinterpret_cast<sockaddr*>(&to), length) != 0) usleep(1000);
    if (write(socket, &group.rank, sizeof(int)) == sizeof(int)) group.sockets.push_back(socket);
}

bool move(int socket, void* memory, size_t bytes, bool out) {
    for (size_t done = 0; done < bytes;) {
        auto at = static_cast<char*>(memory) + done;
        ssize_t moved = out ? send(socket, at, bytes - done, MSG_NOSIGNAL) : recv(socket, at, bytes - done, 0);
        if (moved <= 0) return false;
        done += (size_t)moved;
    }
    return true;
}

// In the order of the ranks; false where one of them has ended.
bool add_up(Sum& sum) {
    Group& group = *sum.group;
    connect_all(group);
    size_t bytes = sum.count * sizeof(float);
    if (group.rank > 0) {
        return move(group.sockets[0], sum.numbers, bytes, true) && move(group.sockets[0], sum.numbers, bytes, false);
    }
    std::vector<float> theirs(sum.count);
    for (int socket : group.sockets) {
        if (!move(socket, theirs.data(), bytes, false)) return false;
        for (size_t i = 0; i < sum.count; i++) sum.numbers[i] += theirs[i];
    }
    for (int socket : group.sockets) {
        if (!move(socket, sum.numbers, bytes, true)) return false;
    }
    return true;
}
}  // namespace

extern "C" {
int ncclGetVersion(int* version) {
    *version = (int)gpu::world("nccl", 22809);
    return SUCCESS;
}

int ncclGetUniqueId(Id* id) {
    static int made = 0;
    snprintf(id->name, sizeof(id->name), "emulated-nccl/%d/%d", getpid(), made++);
    return SUCCESS;
}

const char* ncclGetLastError(Group*) { return "as the emulated GPU was told"; }

int ncclCommInitRankConfig(Group** group, int count, Id id, int rank, Config* config) {
    if (config->magic != MAGIC || config->version < 21700 || config->size < sizeof(Config) || config->blocking != 0) {
        return INVALID_ARGUMENT;
    }
    // What is said of the environment is for the library to read.
    const char *algorithm = getenv("NCCL_ALGO"), *interface = getenv("NCCL_SOCKET_IFNAME");
    if (!algorithm || strcmp(algorithm, "Ring") != 0 || !interface || strcmp(interface, "=lo") != 0) return SYSTEM_ERROR;
    *group = new Group{id, rank, count};
    if (rank == 0) {
        socklen_t length;
        sockaddr_un own = address(id, length);
        (*group)->listening = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind((*group)->listening, reinterpret_cast<sockaddr*>(&own), length) != 0) return SYSTEM_ERROR;
        if (listen((*group)->listening, count) != 0) return SYSTEM_ERROR;
    }
    return IN_PROGRESS;
}

// Some time passes before it is ready; only then has it put on its stream what it was given.
int ncclCommGetAsyncError(Group* group, int* outcome) {
    if (++group->asked < 3) {
        *outcome = IN_PROGRESS;
        return SUCCESS;
    }
    std::lock_guard<std::recursive_mutex> locked(gpu::lock);
    for (Sum sum : group->starting) {
        gpu::ask(sum.stream, [=, stuck = false]() mutable {
            if (!stuck && !sum.group->given_up) stuck = !add_up(sum);
            return !stuck || sum.group->given_up;
        });
    }
    group->starting.clear();
    *outcome = SUCCESS;
    return SUCCESS;
}

int ncclGroupStart() {
    is_grouping = true;
    return SUCCESS;
}

int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, Group* group, gpu::Stream* stream) {
    if (from != to || type != FLOAT32 || operation != SUM || !is_grouping) return INVALID_ARGUMENT;
    if (!group->starting.empty() || group->asked < 3) return INVALID_USAGE;
    grouped.push_back({static_cast<float*>(to), count, group, stream});
    return SUCCESS;
}

int ncclGroupEnd() {
    is_grouping = false;
    for (Sum sum : grouped) {
        sum.group->starting.push_back(sum);
        sum.group->asked = 0;
    }
    grouped.clear();
    return IN_PROGRESS;
}

int ncclCommAbort(Group* group) {
    std::lock_guard<std::recursive_mutex> locked(gpu::lock);
    group->given_up = true;
    for (int socket : group->sockets) close(socket);
    group->sockets.clear();
    return SUCCESS;
}
}
