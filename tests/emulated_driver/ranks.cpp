// NCCL's sums over the GPUs of several processes, by sockets. As the real one it waits for ever for a rank that has ended, until it
// is told to give up; and it connects beside other work, at the first sum.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
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
    // How far it is: sockets that were done with, and bytes of the present one.
    size_t place = 0, moved = 0;
    std::vector<float> theirs = {};
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

// Nothing here waits: what is not there yet is looked for again when somebody asks next.
bool are_connected(Group& group) {
    socklen_t length;
    sockaddr_un to = address(group.id, length);
    group.sockets.resize(group.rank == 0 ? group.count - 1 : 1, -1);
    if (group.rank > 0) {
        if (group.sockets[0] >= 0) return true;
        int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
        bool is_connected = connect(socket, reinterpret_cast<sockaddr*>(&to), length) == 0 &&
                            write(socket, &group.rank, sizeof(int)) == sizeof(int);
        is_connected ? group.sockets[0] = socket : close(socket);
        return is_connected;
    }
    while (std::count(group.sockets.begin(), group.sockets.end(), -1) > 0) {
        int socket = accept(group.listening, nullptr, nullptr), rank = 0;
        if (socket < 0) return false;
        if (read(socket, &rank, sizeof(rank)) == sizeof(rank)) group.sockets[rank - 1] = socket;
    }
    return true;
}

// Whether all bytes are there; a rank that has ended is waited for like one that is late.
bool move(Sum& sum, int socket, float* memory, bool out) {
    for (size_t bytes = sum.count * sizeof(float); sum.moved < bytes;) {
        auto at = reinterpret_cast<char*>(memory) + sum.moved;
        size_t left = bytes - sum.moved;
        ssize_t moved = out ? send(socket, at, left, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(socket, at, left, MSG_DONTWAIT);
        if (moved <= 0) return false;
        sum.moved += (size_t)moved;
    }
    sum.moved = 0;
    sum.place++;
    return true;
}

// In the order of the ranks: the first one gets what each has, and gives them the sums. Whether it is done.
bool add_up(Sum& sum) {
    Group& group = *sum.group;
    if (!are_connected(group)) return false;
    size_t others = group.sockets.size();
    sum.theirs.resize(sum.count);
    while (sum.place < 2 * others) {
        int socket = group.sockets[sum.place % others];
        bool gathers = sum.place < others;
        bool is_received = gathers == (group.rank == 0);
        if (!move(sum, socket, is_received && group.rank == 0 ? sum.theirs.data() : sum.numbers, !is_received)) return false;
        if (group.rank > 0 || !gathers) continue;
        for (size_t i = 0; i < sum.count; i++) sum.numbers[i] += sum.theirs[i];
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
        (*group)->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
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
        gpu::ask(sum.stream, [=]() mutable { return sum.group->given_up || add_up(sum); });
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
