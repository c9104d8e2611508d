#include <costate/finetune/data/glyph_strokes.h>

namespace costate::data {
namespace {

constexpr Pen D = Pen::down, C = Pen::corner;

constexpr Key zero_oval[] = {{.54, .08, D}, {.30, .16}, {.20, .48}, {.29, .82}, {.50, .92},
                             {.72, .80},    {.80, .48}, {.71, .18}, {.52, .08}};
constexpr Key zero_narrow[] = {{.62, .10, D}, {.42, .12}, {.32, .45}, {.34, .80}, {.50, .92},
                               {.66, .76},    {.70, .42}, {.62, .12}, {.48, .12}};
constexpr Key one_bar[] = {{.52, .08, D}, {.51, .50}, {.49, .92}};
constexpr Key one_flag[] = {{.32, .28, D}, {.46, .18}, {.56, .08, C}, {.55, .50}, {.54, .92}};
constexpr Key one_foot[] = {{.34, .26, D}, {.46, .18},    {.54, .08, C}, {.53, .50},
                            {.53, .91},    {.30, .92, D}, {.52, .91},    {.76, .91}};
constexpr Key two_open[] = {{.22, .27, D}, {.34, .12},    {.55, .08}, {.74, .20}, {.72, .40},
                            {.50, .65},    {.21, .91, C}, {.50, .90}, {.82, .89}};
constexpr Key two_loop[] = {{.24, .24, D}, {.42, .09}, {.68, .14}, {.74, .36}, {.56, .64},
                            {.30, .90},    {.17, .83}, {.30, .74}, {.54, .86}, {.84, .90}};
constexpr Key two_wavy[] = {{.20, .22, D}, {.40, .08}, {.66, .14}, {.70, .34}, {.50, .60},
                            {.20, .88, C}, {.40, .80}, {.62, .91}, {.82, .82}};
constexpr Key three_round[] = {{.22, .18, D}, {.44, .08}, {.70, .18}, {.67, .38}, {.42, .47, C},
                               {.70, .57},    {.76, .76}, {.52, .93}, {.20, .83}};
constexpr Key three_flat[] = {{.22, .11, D}, {.48, .11}, {.76, .10, C}, {.60, .26}, {.44, .42, C},
                              {.70, .53},    {.75, .76}, {.50, .93},    {.20, .84}};
constexpr Key three_curly[] = {{.26, .22, D}, {.46, .08}, {.70, .20}, {.58, .42}, {.44, .46},
                               {.58, .48},    {.76, .68}, {.54, .92}, {.24, .80}};
constexpr Key four_open[] = {{.30, .10, D}, {.25, .34},    {.20, .55, C}, {.50, .56},
                             {.82, .54},    {.66, .12, D}, {.64, .50},    {.61, .92}};
constexpr Key four_closed[] = {{.62, .92, D}, {.63, .50}, {.64, .08, C}, {.40, .36},
                               {.16, .64, C}, {.50, .64}, {.84, .63}};
constexpr Key four_round[] = {{.24, .10, D}, {.20, .36},    {.34, .52}, {.58, .48},
                              {.74, .34},    {.76, .08, D}, {.72, .50}, {.68, .92}};
constexpr Key five_strokes[] = {{.32, .11, D}, {.30, .28}, {.27, .46, C}, {.50, .40}, {.73, .54}, {.72, .79},
                                {.48, .93},    {.21, .85}, {.32, .10, D}, {.54, .10}, {.78, .08}};
constexpr Key five_single[] = {{.76, .10, D}, {.54, .09}, {.34, .11, C}, {.30, .27}, {.27, .45, C},
                               {.52, .42},    {.73, .60}, {.64, .86},    {.40, .93}, {.20, .82}};
constexpr Key five_soft[] = {{.78, .12, D}, {.50, .09}, {.34, .18}, {.30, .36}, {.50, .45},
                             {.70, .62},    {.62, .86}, {.38, .92}, {.20, .82}};
constexpr Key six_curved[] = {{.68, .10, D}, {.42, .28}, {.25, .60}, {.32, .86}, {.55, .93},
                              {.75, .76},    {.62, .56}, {.40, .58}, {.26, .74}};
constexpr Key six_straight[] = {{.58, .06, D}, {.40, .28}, {.27, .62}, {.34, .88}, {.58, .92},
                                {.72, .74},    {.56, .58}, {.36, .66}, {.29, .78}};
constexpr Key six_curled[] = {{.74, .18, D}, {.56, .08}, {.32, .30}, {.24, .64}, {.36, .90},
                              {.62, .90},    {.74, .70}, {.54, .55}, {.28, .68}};
constexpr Key seven_plain[] = {{.19, .12, D}, {.50, .11}, {.80, .10, C}, {.60, .48}, {.43, .92}};
constexpr Key seven_crossed[] = {{.19, .13, D}, {.50, .12},    {.80, .10, C}, {.58, .50},
                                 {.44, .92},    {.34, .52, D}, {.54, .51},    {.74, .49}};
constexpr Key seven_serif[] = {{.20, .28, D}, {.20, .20}, {.22, .12, C}, {.50, .12},
                               {.80, .11, C}, {.56, .46}, {.48, .92}};
constexpr Key eight_single[] = {{.70, .20, D}, {.50, .08}, {.30, .22}, {.44, .44}, {.70, .64}, {.68, .86},
                                {.48, .93},    {.26, .82}, {.32, .62}, {.56, .44}, {.70, .22}};
constexpr Key eight_circles[] = {{.52, .47, D}, {.32, .36}, {.34, .14},    {.54, .08}, {.70, .22},
                                 {.64, .40},    {.50, .47}, {.50, .48, D}, {.26, .62}, {.28, .86},
                                 {.52, .93},    {.74, .82}, {.72, .60},    {.50, .48}};
constexpr Key nine_straight[] = {{.72, .22, D}, {.52, .08},    {.28, .24}, {.36, .48},
                                 {.58, .46},    {.72, .22, C}, {.71, .56}, {.68, .92}};
constexpr Key nine_curved[] = {{.73, .26, D}, {.54, .08}, {.28, .22}, {.34, .46}, {.58, .48},
                               {.73, .26},    {.73, .56}, {.58, .86}, {.28, .90}};
constexpr Key nine_leaning[] = {{.72, .18, D}, {.50, .08},    {.28, .26}, {.38, .46},
                                {.60, .38},    {.74, .14, C}, {.60, .52}, {.46, .92}};

constexpr Style zero[] = {zero_oval, zero_narrow};
constexpr Style one[] = {one_bar, one_flag, one_foot};
constexpr Style two[] = {two_open, two_loop, two_wavy};
constexpr Style three[] = {three_round, three_flat, three_curly};
constexpr Style four[] = {four_open, four_closed, four_round};
constexpr Style five[] = {five_strokes, five_single, five_soft};
constexpr Style six[] = {six_curved, six_straight, six_curled};
constexpr Style seven[] = {seven_plain, seven_crossed, seven_serif};
constexpr Style eight[] = {eight_single, eight_circles};
constexpr Style nine[] = {nine_straight, nine_curved, nine_leaning};
constexpr std::span<const Style> digits[] = {zero, one, two, three, four, five, six, seven, eight, nine};

}  // namespace

std::span<const Style> styles_of(int digit) { return digits[digit]; }

}  // namespace costate::data
