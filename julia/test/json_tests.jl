using MLPGF, Test
import MLPGF: parse_json, to_json

@testset "what is written is read" begin
    for value in (nothing, true, false, 0, -3, typemax(Int64), typemax(UInt64), 0.1, -1.5e-300, 5e-324, Inf, -Inf, "",
                  "a\"b\\c\n\té😀\0",
                  Any[], Any[1, Any["x", nothing]], Dict{String,Any}(), Dict{String,Any}("a" => 1.5, "ü" => Any[true]))
        @test parse_json(to_json(value)) == value
        @test typeof(parse_json(to_json(value))) == typeof(value)
    end
    @test isnan(parse_json(to_json(NaN)))
    @test to_json(["b" => 1, "a" => (2, 3)]) == "{\"b\": 1, \"a\": [2, 3]}"        # pairs keep their order
    @test parse_json(" [ 1 , {\"a\" :\t[ ] } ]\n") == [1, Dict("a" => [])]
    @test parse_json("\"\\u00e9\\ud83d\\ude00\\/\\b\"") == "é😀/\b"
end

@testset "what is no JSON is refused" begin
    for text in ("", "{", "[1,", "[1 2]", "{\"a\"}", "{\"a\":}", "{a: 1}", "\"open", "\"\\x\"", "\"\\u12\"",
                 "\"\\ud83d\"", "tru", "1.2.3",
                 "1 2", "[1]]", "nul", "--1")
        @test_throws ArgumentError parse_json(text)
    end
end
