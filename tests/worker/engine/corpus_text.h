// Text to train on, made from a seed: words drawn with a heavy tail, in sentences.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace lasp::worker {

inline std::string MakeText(size_t bytes, uint32_t seed, int word_count = 200) {
  std::mt19937 random(seed);
  std::vector<std::string> words;
  words.reserve(word_count);
  for (int i = 0; i < word_count; ++i) {
    std::string word;
    const int length = 2 + static_cast<int>(random() % 8);
    for (int c = 0; c < length; ++c) {
      word.push_back(static_cast<char>('a' + random() % 26));
    }
    words.push_back(word);
  }
  std::string text;
  while (text.size() < bytes) {
    // The smaller of two draws: some words come much more often than others.
    const size_t a = random() % words.size();
    const size_t b = random() % words.size();
    text += words[std::min(a, b)];
    text += random() % 9 == 0 ? ".\n" : " ";
  }
  text.resize(bytes);
  return text;
}

}  // namespace lasp::worker
