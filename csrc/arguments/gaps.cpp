// encode_gaps and decode_gaps, which work on the host.
#include "../arguments.h"

namespace mist {

void check_encode_gaps(const TensorList& index) {
  Checker checker("encode_gaps", index.at(0));
  for (size_t t = 0; t < index.size(); ++t) {
    const Name name{"index", static_cast<int64_t>(t)};
    checker.placed(name, index[t]);
    checker.typed(name, index[t], ScalarType::Int);
    checker.read<int32_t>(name, index[t], checker.addressable(name, index[t]));
  }
}

void check_decode_gaps(const TensorList& code, const std::vector<int64_t>& count, const std::vector<int64_t>& size) {
  Checker checker("decode_gaps", code.at(0));
  checker.length("count", count.size(), "code", code.size());
  checker.length("size", size.size(), "code", code.size());
  for (size_t t = 0; t < code.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name name{"code", i};
    checker.placed(name, code[t]);
    checker.typed(name, code[t], ScalarType::Byte);
    const int64_t bytes = code[t].numel(), most = std::numeric_limits<int32_t>::max();
    checker.read<uint8_t>(name, code[t], bytes);
    checker.require(size[t] >= 0 && size[t] <= most, Name{"size", i}, " is ", size[t], ", expected 0 to ", most);
    checker.require(count[t] >= 0 && count[t] <= size[t], Name{"count", i}, " is ", count[t], ", expected 0 to ",
                    size[t]);
    // Before memory is taken for so many.
    checker.require(count[t] <= bytes, name, " has ", bytes, " bytes, too few for ", count[t], " positions");
  }
}

void fail_gaps(size_t tensor, GapFault fault, int64_t count, int64_t size) {
  const Name name{"code", static_cast<int64_t>(tensor)};
  if (fault == GapFault::length)
    fail("decode_gaps: ", name, " is not as long as ", count, " positions and the gaps that it escapes take");
  if (fault == GapFault::escape) fail("decode_gaps: ", name, " escapes a gap that has room in a byte");
  fail("decode_gaps: ", name, " holds a position beyond ", size - 1, ", the last of its tensor");
}

}  // namespace mist
