# Matrix products on parts of arrays, without views and without allocation: (array, first element, leading
# dimension) as in BLAS. BLAS for Float32 and Float64, plain loops for every other number type.

const libblas = isdefined(LinearAlgebra.BLAS, :libblastrampoline) ? LinearAlgebra.BLAS.libblastrampoline :
                Base.libblas_name

for (T, gemm, syrk) in ((Float64, :dgemm_, :dsyrk_), (Float32, :sgemm_, :ssyrk_))
    gemm, syrk = (:(LinearAlgebra.BLAS.@blasfunc($f)) for f in (gemm, syrk))
    @eval function gemm!(ta::Char, tb::Char, m::Int, n::Int, k::Int, α::$T, A::Array{$T}, oa::Int, lda::Int,
                         B::Array{$T}, ob::Int, ldb::Int, β::$T, C::Array{$T}, oc::Int, ldc::Int)
        GC.@preserve A B C ccall(($gemm, libblas), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{$T}, Ptr{$T},
             Ref{BLAS.BlasInt}, Ptr{$T}, Ref{BLAS.BlasInt}, Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt}, Clong, Clong),
            ta, tb, m, n, k, α, pointer(A, oa), lda, pointer(B, ob), ldb, β, pointer(C, oc), ldc, 1, 1)
        return C
    end
    # Lower triangle of the n × n matrix C += α AᵀA, with A k × n.
    @eval function syrk!(n::Int, k::Int, α::$T, A::Array{$T}, lda::Int, C::Array{$T}, ldc::Int)
        GC.@preserve A C ccall(($syrk, libblas), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt},
             Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt}, Clong, Clong),
            'L', 'T', n, k, α, pointer(A), lda, one($T), pointer(C), ldc, 1, 1)
        return C
    end
end

"""
    gemm!(ta, tb, m, n, k, α, A, oa, lda, B, ob, ldb, β, C, oc, ldc)

C = α op(A) op(B) + β C with op(A) m×k and op(B) k×n; `oa`, `ob`, `oc` are the linear indices of the first
elements. β = 0 overwrites C whatever it holds.
"""
function gemm!(ta::Char, tb::Char, m::Int, n::Int, k::Int, α, A, oa::Int, lda::Int, B, ob::Int, ldb::Int, β,
               C, oc::Int, ldc::Int)
    ra, ca = ta == 'N' ? (1, lda) : (lda, 1)
    rb, cb = tb == 'N' ? (1, ldb) : (ldb, 1)
    @inbounds for j in 0:n-1, i in 0:m-1
        s = zero(eltype(C))
        for l in 0:k-1
            s += A[oa+ra*i+ca*l] * B[ob+rb*l+cb*j]
        end
        c = oc + i + ldc * j
        C[c] = iszero(β) ? α * s : α * s + β * C[c]
    end
    return C
end
